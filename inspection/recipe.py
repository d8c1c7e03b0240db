"""A recipe folder: reading it, and judging parts by it.

    recipe.toml  model.onnx  golden.png  selftest/NAME.png  selftest/expected.json  recipe.lock

``recipe_lock`` proves that a folder is what was sealed, the self-test that it still gives the verdicts it was sealed with.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from inspection.detector import Image
from inspection.errors import CameraError, ConfigError, InspectionError, UsageError
from inspection.images import read_image
from inspection.inspect_frame import Inspection, error_verdict, measured_of
from inspection.judge import asked_for, combined
from inspection.model import Provider, load_model
from inspection.recipe_config import GOLDEN_WITH_FRAME, Recipe, load_recipe
from inspection.recipe_lock import LOCK as LOCK
from inspection.recipe_lock import lock_sha256 as lock_sha256
from inspection.recipe_lock import verify as verify
from inspection.recipe_lock import write_lock
from inspection.types import Detection, Frame, Verdict, utc_now
from inspection.view import View, open_view

SELFTESTS = "selftest"


@dataclass(frozen=True, slots=True)
class SelfTest:
    """A part that ships with the recipe, one frame for each camera, and the verdict it must get.

    ``mm_per_px`` (by role) is the scale its frames were taken at, where rules name millimetres.
    """

    frames: dict[str, Path]
    verdict: str
    classes: tuple[str, ...]
    mm_per_px: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file name of its frame, of several with + between."""
        return "+".join(path.name for path in self.frames.values())


class LoadedRecipe:
    """A recipe ready to judge: config, a view for each camera, and the hash that records carry."""

    def __init__(self, folder: Path, recipe: Recipe, views: Mapping[str, View]) -> None:
        self.folder = folder
        self.recipe = recipe
        self.views = dict(views)
        self.sha256 = lock_sha256(folder)
        self._interrupted = False

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
        return tuple(self.views)

    @property
    def classes(self) -> tuple[str, ...]:
        """Every defect class the recipe knows, in the order of the counts that a controller is told."""
        return tuple(dict.fromkeys(name for view in self.views.values() for name in view.model.card.classes))

    @property
    def model_sha256(self) -> str:
        """SHA-256 of the model file; of several, in the order of ``cameras``, commas between."""
        return ",".join(view.model.sha256 for view in self.views.values())

    def set_mm_per_px(self, scales: Mapping[str, float | None]) -> None:
        """Tell how large a pixel of each camera (by role) is on the part, millimetres.

        ConfigError naming every camera whose rules need it and that is not in ``scales``.
        """
        for role, scale in scales.items():
            if scale is not None and not (math.isfinite(scale) and scale > 0):
                raise ConfigError(f"camera {role}: {scale} mm per pixel", fix="give a size above 0")
        missing = [role for role, view in self.views.items() if view.needs_scale and scales.get(role) is None]
        if missing:
            raise ConfigError(
                f"recipe {self.recipe_id} has rules in millimetres, and how large a pixel is was not told for camera "
                + ", ".join(missing),
                fix="write the millimetres per pixel of each under [scale_mm_per_px] in the station config "
                "(with `lineside recipe`: --mm-per-px ROLE=VALUE)",
            )
        for role, view in self.views.items():
            view.set_mm_per_px(scales.get(role))

    @property
    def mm_per_px(self) -> dict[str, float]:
        """What ``set_mm_per_px`` was told of the cameras of this recipe."""
        scales = {role: view.criteria.mm_per_px for role, view in self.views.items()}
        return {role: scale for role, scale in scales.items() if scale is not None}

    def warm_up(self) -> None:
        """Run each model once: the first inference allocates, and must not be the first part's."""
        for view in self.views.values():
            view.warm_up()

    def keep_warm(self) -> None:
        """Run each model for nothing, so that the next part finds everything warm."""
        self._interrupted = False
        for view in self.views.values():
            if not self._interrupted:
                view.rehearse()

    def interrupt_warming(self) -> None:
        """End ``keep_warm`` early; may come from another thread, and is harmless when nothing runs."""
        self._interrupted = True
        for view in self.views.values():
            view.model.session.interrupt()

    def inspect(self, frames: Mapping[str, Frame]) -> Inspection:
        """Judge a part by its frames, one for each role in ``cameras``: NG before ERROR before REVIEW before OK.

        A view that cannot be judged, for want of its frame or its golden, is an ERROR with its reason.
        """
        return joined(self.inspect_views(frames))

    def inspect_views(self, frames: Mapping[str, Frame]) -> dict[str, Inspection]:
        """Judge each view of a part alone, by role."""
        return {role: _of_camera(_inspected(role, view, frames), role) for role, view in self.views.items()}

    def brought_goldens(self, frames: Mapping[str, Frame]) -> dict[str, Image]:
        """By role the goldens that frames brought along, where the recipe says that these count."""
        return {
            role: frame.golden
            for role, frame in frames.items()
            if frame.golden is not None and self.recipe.views[role].golden == GOLDEN_WITH_FRAME
        }

    def inspect_image(self, frame: Image, golden: Image | None = None) -> Inspection:
        """Judge a frame by a recipe of one camera; UsageError when it has several."""
        return self.inspect_images({self._only_role(): frame}, golden)

    def inspect_images(self, images: Mapping[str, Image], golden: Image | None = None) -> Inspection:
        """Judge a part by its pictures, as ``inspect`` does by frames; ``golden`` is what a single frame brings along."""
        return self.inspect(frames_of(images, golden))

    def _only_role(self) -> str:
        if len(self.views) != 1:
            raise UsageError(
                f"recipe {self.recipe_id} looks through {', '.join(self.views)}", fix="give one frame of each camera"
            )
        return next(iter(self.views))


def frames_of(images: Mapping[str, Image], golden: Image | None = None) -> dict[str, Frame]:
    """Pictures by camera role as frames that no camera took."""
    now = utc_now()
    return {role: Frame(image, role, now, role, True, golden=golden) for role, image in images.items()}


def joined(views: Mapping[str, Inspection]) -> Inspection:
    """One inspection of a part from those of its views; a single one comes back as it is."""
    if len(views) == 1:
        return next(iter(views.values()))
    return Inspection(
        combined({role: seen.judgement for role, seen in views.items()}),
        tuple(found for seen in views.values() for found in seen.detections),
        tuple((f"{role}.{stage}", ms) for role, seen in views.items() for stage, ms in seen.stage_ms),
        measured=tuple(one for seen in views.values() for one in seen.measured),
    )


def _inspected(role: str, view: View, frames: Mapping[str, Frame]) -> Inspection:
    """One of the views; what it cannot judge is its ERROR, and the others are judged all the same."""
    try:
        frame = frames.get(role)
        if frame is None:
            raise CameraError(f"camera {role} gave no frame", fix="check the camera and its cable")
        seen = view.inspect(frame.image, frame.golden)
        return replace(seen, measured=measured_of(role, seen, view.golden_size(frame.golden)))
    except InspectionError as error:
        return Inspection(error_verdict(error), (), ())


def _of_camera(seen: Inspection, role: str) -> Inspection:
    """With the camera's role in every finding."""

    def named(detections: tuple[Detection, ...]) -> tuple[Detection, ...]:
        return tuple(replace(found, camera=role) for found in detections)

    reasons = tuple(replace(reason, detections=named(reason.detections)) for reason in seen.judgement.reasons)
    return replace(seen, judgement=replace(seen.judgement, reasons=reasons), detections=named(seen.detections))


def open_recipe(folder: Path, *, threads: int = 0, provider: Provider = "cpu") -> LoadedRecipe:
    """Load a recipe folder; ConfigError or ModelError with every mistake found.  Does not check the lock."""
    recipe = load_recipe(folder / "recipe.toml")
    models = {
        name: load_model(folder / name, threads=threads, provider=provider)
        for name in dict.fromkeys(view.model for view in recipe.views.values())
    }
    views = {}
    for role, section in recipe.views.items():
        where = f"{folder / 'recipe.toml'}: views.{role}"
        views[role] = open_view(folder, where, section, models[section.model])
    return LoadedRecipe(folder, recipe, views)


def seal(folder: Path, key: Ed25519PrivateKey | None = None) -> str:
    """Write ``recipe.lock`` over every file of the folder, signed where a key is given; returns the recipe's SHA-256.

    Checks the recipe first.
    """
    open_recipe(folder)
    return write_lock(folder, key)


def read_selftests(folder: Path, roles: tuple[str, ...]) -> tuple[SelfTest, ...]:
    """The self-tests of a recipe with these cameras; empty when it ships none."""
    path = folder / SELFTESTS / "expected.json"
    if not path.is_file():
        return ()
    try:
        return tuple(_selftest(path.parent, row, roles) for row in json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({error!r})", fix="restore the recipe folder from its source") from error


def _selftest(folder: Path, row: Any, roles: tuple[str, ...]) -> SelfTest:
    names = row["frames"] if "frames" in row else {roles[0]: row["frame"]}
    if set(names) != set(roles) or any(Path(name).name != name for name in names.values()):
        raise ValueError(f"frames {names} are not one file here for each of {', '.join(roles)}")
    scales = {role: float(scale) for role, scale in row.get("mm_per_px", {}).items()}
    return SelfTest({role: folder / names[role] for role in roles}, row["verdict"], tuple(row["classes"]), scales)


def run_selftest(loaded: LoadedRecipe) -> int:
    """Judge the self-test frames on this machine; ConfigError when one differs.  Returns how many were judged."""
    tests = read_selftests(loaded.folder, loaded.cameras)
    for test in tests:
        verdict, classes = _outcome(loaded, test.frames, test.mm_per_px)
        if (verdict, classes) != (test.verdict, test.classes):
            raise ConfigError(
                f"self-test {test.name} of recipe {loaded.recipe_id}: expected {test.verdict} {list(test.classes)}, "
                f"got {verdict} {list(classes)}",
                fix="the recipe does not give the same verdicts on this machine: do not run it; compare versions",
            )
    return len(tests)


def _outcome(
    loaded: LoadedRecipe, frames: Mapping[str, Path], scales: Mapping[str, float]
) -> tuple[str, tuple[str, ...]]:
    """Verdict and the classes that are NG; judged at the scale the frames were taken at, not at the station's."""
    here = loaded.mm_per_px
    if scales:
        loaded.set_mm_per_px(scales)
    try:
        seen = loaded.inspect_images({role: read_image(path) for role, path in frames.items()})
    finally:
        for role, view in loaded.views.items():
            view.set_mm_per_px(here.get(role))
    ng = (reason for reason in seen.judgement.reasons if asked_for(reason) == Verdict.NG)
    return seen.judgement.verdict.name, tuple(
        sorted({found.defect_class for reason in ng for found in reason.detections})
    )


def write_selftests(loaded: LoadedRecipe, parts: Sequence[Mapping[str, Path]]) -> None:
    """Record what the recipe says of ``parts`` (frames by role, in ``selftest/``) as what it must say from now on."""
    rows: list[dict[str, Any]] = []
    for frames in parts:
        verdict, classes = _outcome(loaded, frames, {})
        names = {role: path.name for role, path in frames.items()}
        row: dict[str, Any] = {"frame": names[loaded.cameras[0]]} if len(names) == 1 else {"frames": names}
        rows.append({**row, "verdict": verdict, "classes": classes})
        if any(view.needs_scale for view in loaded.views.values()):
            rows[-1]["mm_per_px"] = loaded.mm_per_px
    (loaded.folder / SELFTESTS / "expected.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
