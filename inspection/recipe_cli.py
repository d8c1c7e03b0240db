"""`lineside recipe`: make, check, sign, seal and verify recipes, and change which version is in force."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inspection.check_sheet import draw_check
from inspection.errors import UsageError
from inspection.frame_files import parts_of
from inspection.images import write_png
from inspection.promotion_gate import gate_warnings
from inspection.recipe import LoadedRecipe, open_recipe, read_selftests, run_selftest, seal, write_selftests
from inspection.recipe_check import check_parts, recipe_warnings, report
from inspection.recipe_lock import lock_sha256, read_lock, verify
from inspection.recipe_new import Plan, ViewPlan, make_recipe
from inspection.recipe_versions import history, promote, rollback
from inspection.signing_keys import PUBLIC_END, make_key, read_private_key
from inspection.types import Verdict

CHECK_PICTURE = Path("check.png")


def add_recipe(verbs: Any) -> None:
    """Add the verb and the verbs below it."""
    recipe = verbs.add_parser(
        "recipe", help="make, check, sign, seal, verify, promote and roll back recipes"
    ).add_subparsers(dest="recipe_verb", required=True, metavar="VERB")
    _add_new(recipe)
    check = recipe.add_parser(
        "check", help="judge frames by a recipe, say how near they are to its limits, draw it all"
    )
    check.add_argument("folder", type=Path, metavar="RECIPE")
    check.add_argument("frames", type=Path, nargs="+", metavar="FRAMES", help="files or folders")
    _add_picture(check)
    _add_scale(check)
    check.set_defaults(func=_check)
    seal_ = recipe.add_parser("seal", help="write the lock over every file, signed where a key is given")
    seal_.add_argument("folder", type=Path, metavar="RECIPE")
    seal_.add_argument(
        "--renew-selftests",
        action="store_true",
        help="record what the recipe says now of its self-test frames as expected",
    )
    _add_scale(seal_)
    _add_key(seal_)
    seal_.set_defaults(func=_seal)
    verify_ = recipe.add_parser(
        "verify", help="compare every file with the lock, check the signature, replay self-tests"
    )
    verify_.add_argument("folder", type=Path, metavar="RECIPE")
    _add_trusted(verify_)
    verify_.set_defaults(func=_verify)
    key = recipe.add_parser("key", help="make a private key that signs recipes, and its public key FILE.pub")
    key.add_argument("file", type=Path, metavar="FILE")
    key.set_defaults(func=_key)
    _add_versions(recipe)


def _add_versions(recipe: Any) -> None:
    promote_ = recipe.add_parser(
        "promote", help="put a challenger in force, if it held every gate against the version in force"
    )
    promote_.add_argument("challenger", type=Path, metavar="CHALLENGER")
    rollback_ = recipe.add_parser("rollback", help="put the version before this one, or a named one, in force again")
    for verb in (promote_, rollback_):
        verb.add_argument("folder", type=Path, metavar="RECIPE")
        verb.add_argument("--who", required=True, metavar="NAME", help="who makes the change")
        verb.add_argument("--why", required=True, metavar="TEXT", help="why, for the history")
        _add_trusted(verb)
    rollback_.add_argument("--to", default="", metavar="SHA", help="the version, by the beginning of its SHA-256")
    promote_.set_defaults(func=_promote)
    rollback_.set_defaults(func=_rollback)
    history_ = recipe.add_parser("history", help="who put which version in force, when and why")
    history_.add_argument("folder", type=Path, metavar="RECIPE")
    history_.set_defaults(func=_history)


def _add_trusted(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--trusted",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE.pub",
        help="public keys, one of which must have signed",
    )


def _add_new(recipe: Any) -> None:
    new = recipe.add_parser(
        "new", help="make and seal a recipe from a model and a golden picture, and check it on frames"
    )
    new.add_argument("folder", type=Path, metavar="RECIPE")
    new.add_argument("--model", type=Path, help="model of a recipe with one camera")
    new.add_argument("--golden", type=Path, help="golden picture of the product")
    new.add_argument("--camera", default="top", help="role of the camera")
    new.add_argument(
        "--view",
        action="append",
        default=[],
        metavar="ROLE=MODEL[,GOLDEN]",
        help="one of several cameras; repeat it for each",
    )
    new.add_argument("--id", default="", help="recipe id (default: the folder's name)")
    new.add_argument(
        "--samples", type=Path, nargs="+", default=[], metavar="IMAGE",
        help="frames of good parts, files or folders: limits of the image quality are taken from them where the model brings none",
    )  # fmt: skip
    new.add_argument(
        "--selftest", type=Path, nargs="*", default=[], metavar="IMAGE",
        help="frames to replay before Ready; with several cameras NAME.ROLE.png",
    )  # fmt: skip
    new.add_argument(
        "--try",
        dest="frames",
        type=Path,
        nargs="+",
        default=[],
        metavar="FRAMES",
        help="check the recipe on these frames",
    )
    _add_picture(new)
    _add_scale(new)
    _add_key(new)
    new.set_defaults(func=_new)


def _add_picture(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "-o",
        "--output",
        type=Path,
        default=CHECK_PICTURE,
        metavar="FILE",
        help="the picture of the check (default: check.png)",
    )


def _add_scale(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--mm-per-px",
        nargs="+",
        default=[],
        metavar="ROLE=VALUE",
        help="millimetres per pixel, for rules that name millimetres",
    )


def _add_key(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--key", type=Path, metavar="FILE", help="private key to sign with (`lineside recipe key`)")


def _new(args: argparse.Namespace) -> int:
    views = _views(args)
    name = args.id or args.folder.name
    scales = _scales(args.mm_per_px)
    plan = Plan(args.folder, name, views, tuple(args.samples), tuple(args.selftest), scales)
    parts = parts_of(args.frames, plan.roles)
    sealed = make_recipe(plan, None if args.key is None else read_private_key(args.key))
    loaded = _opened(args.folder, args.mm_per_px)
    _tell_selftests(loaded)
    if parts:
        _checked(loaded, args.frames, args.output)
    print(f"{args.folder}: sealed {sealed}{_signed_by(args.folder)}")
    return 0


def _views(args: argparse.Namespace) -> tuple[ViewPlan, ...]:
    if bool(args.view) == (args.model is not None) or (args.view and args.golden is not None):
        raise UsageError(
            "give either --model MODEL [--golden FILE] for one camera, or --view ROLE=MODEL[,GOLDEN] for each of several",
            fix="lineside recipe new RECIPE --view top=model.onnx,top.png --view side=side.onnx",
        )
    if not args.view:
        return (ViewPlan(args.camera, args.model, args.golden),)
    views = []
    for text in args.view:
        role, _, files = text.partition("=")
        model, _, golden = files.partition(",")
        if not role or not model:
            raise UsageError(
                f"--view {text!r} is not ROLE=MODEL[,GOLDEN]", fix="for example --view top=model.onnx,golden.png"
            )
        views.append(ViewPlan(role, Path(model), Path(golden) if golden else None))
    roles = [view.role for view in views]
    if len(set(roles)) < len(roles):
        raise UsageError("two views have the same role", fix="give each camera a role of its own")
    return tuple(views)


def _scales(texts: Sequence[str]) -> dict[str, float]:
    scales = {}
    for text in texts:
        role, _, value = text.partition("=")
        try:
            scales[role] = float(value)
        except ValueError:
            raise UsageError(
                f"--mm-per-px {text!r} is not ROLE=VALUE", fix="for example --mm-per-px top=0.05"
            ) from None
    return scales


def _opened(folder: Path, scales: Sequence[str]) -> LoadedRecipe:
    loaded = open_recipe(folder)
    loaded.set_mm_per_px(_scales(scales))
    return loaded


def _tell_selftests(loaded: LoadedRecipe) -> None:
    """Say which self-tests ask for no verdict on the part: most likely the frame, not the part, is at fault."""
    tests = read_selftests(loaded.folder, loaded.cameras)
    for test in tests:
        if test.verdict == Verdict.ERROR.name:
            print(f"warning: self-test {test.name} cannot be judged: its sealed verdict is ERROR", file=sys.stderr)
    missing = {Verdict.OK.name, Verdict.NG.name} - {test.verdict for test in tests}
    if missing:
        print(
            f"warning: no self-test is {' and none is '.join(sorted(missing))}: add one of each kind", file=sys.stderr
        )


def _checked(loaded: LoadedRecipe, frames: Sequence[Path], picture: Path) -> int:
    """Print the check, draw it, and return 1 when a part could not be judged."""
    checked = check_parts(loaded, parts_of(frames, loaded.cameras))
    odd = recipe_warnings(loaded, checked)
    print("\n".join(report(loaded, checked, odd)))
    write_png(picture, draw_check(loaded, checked, odd))
    print(f"drawn to {picture}")
    return int(any(part.judgement.verdict == Verdict.ERROR for part in checked))


def _check(args: argparse.Namespace) -> int:
    return _checked(_opened(args.folder, args.mm_per_px), args.frames, args.output)


def _seal(args: argparse.Namespace) -> int:
    key = None if args.key is None else read_private_key(args.key)
    if args.key is not None and args.folder.resolve() in args.key.resolve().parents:
        raise UsageError(
            f"the private key {args.key} lies in the recipe itself", fix="keep it where no station can read it"
        )
    if args.renew_selftests:
        _renew_selftests(_opened(args.folder, args.mm_per_px))
    print(f"{args.folder}: sealed {seal(args.folder, key)}{_signed_by(args.folder)}")
    return 0


def _renew_selftests(loaded: LoadedRecipe) -> None:
    """Record anew what the self-tests must give, and say what is different from before."""
    before = read_selftests(loaded.folder, loaded.cameras)
    write_selftests(loaded, [test.frames for test in before])
    for old, new in zip(before, read_selftests(loaded.folder, loaded.cameras), strict=True):
        if (old.verdict, old.classes) != (new.verdict, new.classes):
            print(f"self-test {new.name}: {old.verdict} {list(old.classes)} becomes {new.verdict} {list(new.classes)}")


def _signed_by(folder: Path) -> str:
    signature = read_lock(folder).signature
    return ", not signed" if signature is None else f", signed with the key {signature.fingerprint[:16]}"


def _verify(args: argparse.Namespace) -> int:
    verify(args.folder, args.trusted)
    tests = run_selftest(open_recipe(args.folder))
    print(
        f"{args.folder}: as sealed ({lock_sha256(args.folder)[:12]}{_signed_by(args.folder)}), {tests} self-test frames give "
        "the sealed verdicts"
    )
    return 0


def _key(args: argparse.Namespace) -> int:
    print(f"{args.file}: private key, keep it secret; {args.file}{PUBLIC_END}: public key {make_key(args.file)[:16]}")
    return 0


def _promote(args: argparse.Namespace) -> int:
    sha256 = promote(args.challenger, args.folder, who=args.who, why=args.why, trusted=args.trusted)
    for few in gate_warnings(args.folder):
        print(f"warning: gate {few}", file=sys.stderr)
    print(
        f"{args.folder}: version {sha256[:16]} is in force{_signed_by(args.folder)}; stations take it between two parts"
    )
    return 0


def _rollback(args: argparse.Namespace) -> int:
    sha256 = rollback(args.folder, who=args.who, why=args.why, to=args.to, trusted=args.trusted)
    print(f"{args.folder}: version {sha256[:16]} is in force again; stations take it between two parts")
    return 0


def _history(args: argparse.Namespace) -> int:
    for line in history(args.folder):
        text = f"{line.what} by {line.who}: {line.why}"
        shown = "".join(letter if letter.isprintable() else "?" for letter in text)
        print(
            f"{line.at:%Y-%m-%d %H:%M:%S}Z  {line.from_sha256[:16] or 'not sealed':16} -> {line.to_sha256[:16]}  {shown}"
        )
    print(f"in force: {lock_sha256(args.folder)[:16] or 'not sealed'}")
    return 0
