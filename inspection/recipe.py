"""A recipe folder: reading it, sealing it, and proving that it still gives the verdicts it was sealed with.

    recipe.toml  model.onnx  golden.png  selftest/NAME.png  selftest/expected.json  recipe.lock

``recipe.lock`` holds the SHA-256 of every other file; its own SHA-256 names the recipe in each record.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inspection.config import GOLDEN_WITH_FRAME, Recipe, load_recipe
from inspection.detector import Image
from inspection.errors import ConfigError, FrameCorrupt
from inspection.golden import GoldenTemplate
from inspection.images import read_grey
from inspection.inspect_frame import FLOOR, AnyDetector, Criteria, Inspection, inspect_frame, open_detector
from inspection.model import LoadedModel, Provider, file_sha256, load_model
from inspection.types import Frame

LOCK = "recipe.lock"


@dataclass(frozen=True, slots=True)
class SelfTest:
    """A frame that ships with the recipe and the verdict it must get."""

    frame: Path
    verdict: str
    classes: tuple[str, ...]


class LoadedRecipe:
    """A recipe ready to judge: config, model, golden, and the hash that records carry."""

    def __init__(self, folder: Path, recipe: Recipe, model: LoadedModel, golden: GoldenTemplate | None) -> None:
        self.folder = folder
        self.recipe = recipe
        self.model = model
        self.golden = golden
        self.sha256 = lock_sha256(folder)
        rules = tuple(section.rule() for section in recipe.rules)
        floor = min(FLOOR, *(rule.review_score for rule in rules))  # what a rule asks for must be kept
        self.criteria = Criteria(recipe.quality.limits(), rules, floor)
        self.detector = None if model.card.golden_guided and golden is None else self.detector_for(golden)

    @property
    def recipe_id(self) -> str:
        """The name a controller asks for."""
        return self.recipe.recipe_id

    @property
    def deadline_ms(self) -> int:
        """From trigger to verdict, milliseconds."""
        return self.recipe.deadline_ms

    @property
    def cameras(self) -> tuple[str, ...]:
        """The roles of the cameras that look at the part."""
        return (self.recipe.camera,)

    @property
    def classes(self) -> tuple[str, ...]:
        """Every defect class the recipe knows, in the order of the counts that a controller is told."""
        return self.model.card.classes

    @property
    def model_sha256(self) -> str:
        """SHA-256 of the model file; of several, in the order of ``cameras``, commas between."""
        return self.model.sha256

    def detector_for(self, golden: GoldenTemplate | None) -> AnyDetector:
        """A detector that compares with ``golden``."""
        return open_detector(self.model, golden, self.recipe.registration.limits())

    def warm_up(self) -> None:
        """Run the model once: the first inference allocates, and must not be the first part's."""
        if self.detector is not None and self.golden is not None:
            self.detector.warm_up((self.golden.image.shape[0], self.golden.image.shape[1]))

    def inspect(self, frames: Mapping[str, Frame]) -> Inspection:
        """Judge a part by its frames, one for each role in ``cameras``."""
        frame = frames[self.recipe.camera]
        return self.inspect_image(frame.image, frame.golden)

    def inspect_image(self, frame: Image, golden: Image | None = None) -> Inspection:
        """Judge a frame by this recipe; ``golden`` counts only where the recipe says that frames bring their own."""
        brought = golden if self.recipe.golden == GOLDEN_WITH_FRAME else None
        detector = self.detector if brought is None else self.detector_for(GoldenTemplate(brought))
        if detector is None:
            raise FrameCorrupt(
                "the frame brings no golden template, and the recipe has none of its own",
                fix="put the golden beside the frame, or name golden.png in the recipe",
            )
        return inspect_frame(frame, detector, self.criteria)


def open_recipe(folder: Path, *, threads: int = 0, provider: Provider = "onnxruntime") -> LoadedRecipe:
    """Load a recipe folder; ConfigError or ModelError with every mistake found.  Does not check the lock."""
    recipe = load_recipe(folder / "recipe.toml")
    model = load_model(folder / recipe.model, threads=threads, provider=provider)
    ruled = {rule.defect_class for rule in recipe.rules}
    missing, unknown = sorted(set(model.card.classes) - ruled), sorted(ruled - set(model.card.classes))
    if missing or unknown:
        raise ConfigError(
            f"{folder / 'recipe.toml'}: rules do not match the model's classes {list(model.card.classes)}: "
            f"missing {missing}, unknown {unknown}",
            fix="give each class of the model one rule; a class without a rule would never be rejected",
        )
    golden = None
    if recipe.golden and recipe.golden != GOLDEN_WITH_FRAME:
        golden = GoldenTemplate(read_grey(folder / recipe.golden))
    if model.card.golden_guided and not recipe.golden:
        raise ConfigError(
            f"{folder / 'recipe.toml'}: golden is empty, and model {model.card.name!r} compares with a golden template",
            fix='put golden.png into the folder and write golden = "golden.png"',
        )
    return LoadedRecipe(folder, recipe, model, golden)


def _files(folder: Path) -> list[Path]:
    own = (folder / LOCK, folder / (LOCK + ".partial"))
    return sorted(path for path in folder.rglob("*") if path.is_file() and path not in own)


def seal(folder: Path) -> str:
    """Write ``recipe.lock`` over every file of the folder; returns the recipe's SHA-256.  Checks the recipe first."""
    open_recipe(folder)
    hashes = {path.relative_to(folder).as_posix(): file_sha256(path) for path in _files(folder)}
    partial = folder / (LOCK + ".partial")
    partial.write_text(json.dumps({"schema": 1, "files": hashes}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(folder / LOCK)
    return lock_sha256(folder)


def lock_sha256(folder: Path) -> str:
    """SHA-256 of the lock file, or "" for an unsealed recipe."""
    lock = folder / LOCK
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else ""


def verify(folder: Path) -> None:
    """Compare every file with the lock; ConfigError naming each one that changed, went or came."""
    lock = folder / LOCK
    if not lock.is_file():
        raise ConfigError(
            f"{folder} is not sealed: it has no {LOCK}", fix=f"check it, then `lineside recipe seal {folder}`"
        )
    try:
        sealed = dict(json.loads(lock.read_text(encoding="utf-8"))["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{lock} is damaged ({error})", fix="restore the recipe folder from its source") from error
    present = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
    wrong = [f"{name} is missing" for name in sorted(set(sealed) - set(present))]
    wrong += [f"{name} is not in the lock" for name in sorted(set(present) - set(sealed))]
    wrong += [
        f"{name} was changed" for name, path in present.items() if name in sealed and file_sha256(path) != sealed[name]
    ]
    if wrong:
        raise ConfigError(
            f"the recipe {folder} is not what was sealed: " + "; ".join(wrong),
            fix="restore the folder from its source, or review the change and seal it again",
        )


def read_selftests(folder: Path) -> tuple[SelfTest, ...]:
    """The recipe's self-tests; empty when it ships none."""
    path = folder / "selftest" / "expected.json"
    if not path.is_file():
        return ()
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return tuple(SelfTest(path.parent / row["frame"], row["verdict"], tuple(row["classes"])) for row in rows)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({error!r})", fix="restore the recipe folder from its source") from error


def run_selftest(loaded: LoadedRecipe) -> int:
    """Judge the self-test frames on this machine; ConfigError when one differs.  Returns how many were judged."""
    tests = read_selftests(loaded.folder)
    for test in tests:
        seen = loaded.inspect_image(read_grey(test.frame))
        classes = _ng_classes(seen)
        if seen.judgement.verdict.name != test.verdict or classes != test.classes:
            raise ConfigError(
                f"self-test {test.frame.name} of recipe {loaded.recipe.recipe_id}: expected {test.verdict} {list(test.classes)}, "
                f"got {seen.judgement.verdict.name} {list(classes)}",
                fix="the recipe does not give the same verdicts on this machine: do not run it; compare versions",
            )
    return len(tests)


def _ng_classes(seen: Inspection) -> tuple[str, ...]:
    return tuple(sorted(r.rule_id.removeprefix("ng.") for r in seen.judgement.reasons if r.rule_id.startswith("ng.")))


def write_selftests(loaded: LoadedRecipe, frames: list[Path]) -> None:
    """Record what the recipe says of ``frames`` (already in ``selftest/``) as what it must say from now on."""
    rows = []
    for frame in frames:
        seen = loaded.inspect_image(read_grey(frame))
        rows.append({"frame": frame.name, "verdict": seen.judgement.verdict.name, "classes": _ng_classes(seen)})
    (loaded.folder / "selftest" / "expected.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
