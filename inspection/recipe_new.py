"""Makes a recipe folder from models, golden templates and frames of good parts."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from inspection.errors import UsageError
from inspection.frame_files import PartFiles, parts_of
from inspection.images import read_grey, read_image, write_png
from inspection.model import ModelCard, load_model
from inspection.predict import rules_of
from inspection.quality import QualityLimits, measure
from inspection.recipe import SELFTESTS, open_recipe, seal, write_selftests
from inspection.recipe_config import LEAST_SCORE

_QUALITY_SHARE = 0.5  # of what good frames show must be left


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """What one camera's view is made from."""

    role: str
    model: Path
    golden: Path | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recipe is made from.  ``samples`` are frames of good parts, ``selftest`` frames that ship with the recipe."""

    folder: Path
    recipe_id: str
    views: tuple[ViewPlan, ...]
    samples: tuple[Path, ...] = ()
    selftest: tuple[Path, ...] = ()
    mm_per_px: Mapping[str, float] = field(default_factory=dict)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the cameras."""
        return tuple(view.role for view in self.views)


def make_recipe(plan: Plan, key: Ed25519PrivateKey | None = None) -> str:
    """Write, self-test and seal the recipe; the folder appears whole or not at all.  Returns its SHA-256.

    UsageError when the folder exists or something given does not fit; ConfigError or ModelError as ``open_recipe``.
    """
    if plan.folder.exists():
        raise UsageError(f"{plan.folder} exists already", fix="choose a new folder; recipes are never overwritten")
    samples, selftest = parts_of(plan.samples, plan.roles), parts_of(plan.selftest, plan.roles)
    _check_names(selftest)
    partial = plan.folder.with_name(plan.folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / SELFTESTS).mkdir(parents=True)
    try:
        text = [f"schema_version = 2\nrecipe_id = {json.dumps(plan.recipe_id)}\nproduct = {json.dumps(plan.recipe_id)}"]
        copied: dict[Path, str] = {}
        for view in plan.views:
            seen = [part.frames[view.role] for part in (*samples, *selftest)]
            text.append(_write_view(view, partial, copied, seen, alone=len(plan.views) == 1))
        (partial / "recipe.toml").write_text("\n\n".join(text) + "\n", encoding="utf-8")
        loaded = open_recipe(partial)
        loaded.set_mm_per_px(plan.mm_per_px)
        write_selftests(loaded, [_copy_part(part, partial / SELFTESTS) for part in selftest])
        sealed = seal(partial, key)
        partial.rename(plan.folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sealed


def _check_names(parts: Sequence[PartFiles]) -> None:
    names = [part.name.casefold() for part in parts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"several self-test frames are called {', '.join(twice)}", fix="give each a name of its own")


def _copy_part(part: PartFiles, folder: Path) -> dict[str, Path]:
    copies = {}
    for role, source in part.frames.items():
        end = ".png" if len(part.frames) == 1 else f".{role}.png"
        copies[role] = folder / (part.name + end)
        write_png(copies[role], read_image(source))
    return copies


def _write_view(view: ViewPlan, folder: Path, copied: dict[Path, str], frames: Sequence[Path], *, alone: bool) -> str:
    """Copy model and golden of a view; returns its tables for recipe.toml."""
    card = load_model(view.model).card
    if card.golden_guided and view.golden is None:
        raise UsageError(f"model {card.name!r} compares with a golden template", fix="give --golden FILE")
    model = copied.setdefault(view.model.resolve(), "model.onnx" if alone else f"model-{view.role}.onnx")
    if not (folder / model).exists():
        shutil.copyfile(view.model, folder / model)
    golden = ""
    if view.golden is not None:
        golden = "golden.png" if alone else f"golden-{view.role}.png"
        write_png(folder / golden, read_image(view.golden))
    pictures = [*([view.golden] if view.golden is not None else []), *frames]
    return "\n".join(_view_lines(view.role, model, golden, card, _limits(card, pictures)))


def _view_lines(role: str, model: str, golden: str, card: ModelCard, limits: QualityLimits | None) -> list[str]:
    table = f"views.{json.dumps(role) if '.' in role else role}"
    lines = [f"[{table}]", f'model = "{model}"', *([f'golden = "{golden}"'] if golden else [])]
    if limits is not None:
        lines += ["", f"[{table}.quality]"]
        lines += [f"{name} = {getattr(limits, name):g}" for name in QualityLimits.__dataclass_fields__]
    for rule in rules_of(card):
        # Below the limit of a finding in a box a person looks; the score of a whole part has no such slope.
        review = rule.ng_score / 2 if card.task == "detect" and not card.limits else rule.review_score
        # Calibrated limits stand to the last digit: what the card promises of them holds for these and none above.
        ng, low = (repr(s) if card.limits else f"{s:.4g}" for s in (rule.ng_score, max(review, LEAST_SCORE)))
        lines += [
            "", f"[[{table}.rules]]", f"defect_class = {json.dumps(rule.defect_class)}", f"ng_score = {ng}",
            f"review_score = {low}",
        ]  # fmt: skip
    return lines


def _limits(card: ModelCard, pictures: Sequence[Path]) -> QualityLimits | None:
    """Limits for the image-quality gate: the model's own, from the images it was trained on, or those of the pictures."""
    if card.images is not None:
        return QualityLimits(**card.images.model_dump())
    return limits_from(pictures) if pictures else None


def limits_from(pictures: Sequence[Path]) -> QualityLimits:
    """Half of the least contrast and sharpness that good pictures show, and a wide margin of brightness."""
    seen = [measure(read_grey(path)) for path in pictures]
    dark, bright = min(q.brightness for q in seen), max(q.brightness for q in seen)
    return QualityLimits(
        min_contrast=_within(_QUALITY_SHARE * min(q.contrast for q in seen), 0.1, 100),
        min_sharpness=_within(_QUALITY_SHARE * min(q.sharpness for q in seen), 0.1, 250),
        min_brightness=_within(_QUALITY_SHARE * dark, 0.1, 200),
        max_brightness=_within(bright + _QUALITY_SHARE * (255 - bright), 50, 255),
    )


def _within(value: float, low: float, high: float) -> float:
    return round(min(max(value, low), high), 1)
