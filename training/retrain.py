"""`lineside retrain`: from a recipe and new labelled parts to a sealed challenger and its comparison with the champion.

    OUT/retrain.json   what this folder is the retraining of
    OUT/run/           start, checkpoint and log of the training: a run that was ended goes on from there
    OUT/recipe/        the challenger, sealed; it appears whole, as the last step

The champion is the recipe as it was sealed.  The net starts from the weights in its own model file.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.manifest import Dataset
from inspection.errors import UsageError
from inspection.images import write_whole
from inspection.model import ModelCard, load_model
from inspection.recipe import LoadedRecipe, lock_sha256, open_recipe, read_selftests, run_selftest, verify
from inspection.recipe_lock import file_hashes
from inspection.types import utc_now
from training import challenger as made
from training.by_recipe import frames_beside, judge_all, measure_latency
from training.comparison import Change, Gate, Judged, as_json, changes, gates
from training.export import write_card
from training.fine_tune import RUN, Asked, fine_tune
from training.limits import Chosen, choose_limits
from training.report.comparison import write_comparison_page
from training.sides import Sides, divide
from training.start import product_of

_PLAN, _RECIPE, _PARTIAL = "retrain.json", "recipe", ".recipe.partial"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The folder of the sealed challenger, its gates, and every part whose verdict changed."""

    folder: Path
    gates: tuple[Gate, ...]
    changed: tuple[Change, ...]

    @property
    def held(self) -> bool:
        """Whether all gates hold."""
        return all(gate.held for gate in self.gates)


def retrain(asked: Asked) -> Outcome:
    """Train on, choose limits, compare with the champion, seal.  Run again after it was ended, it goes on.

    UsageError, ConfigError or ModelError when something does not fit; the folder of the challenger is there whole or not.
    """
    verify(asked.recipe)
    champion = _opened(asked.recipe, asked)
    run_selftest(champion)
    role = _role(champion, asked.view)
    old = champion.views[role].model
    product_of(old.card)
    sides = divide(
        asked.dataset, holdout=asked.holdout, escapes=asked.escapes,
        known=old.card.trained_on.images_sha256, seed=asked.seed,
    )  # fmt: skip
    _require_classes(old.card, sides)
    _require_comparable(sides.holdout)
    _require_timeable(champion, role, asked.deadline_ms)
    _begin(asked, champion, role, sides)
    _tell(sides)
    path = fine_tune(asked, champion.views[role], sides)
    return _compared(asked, champion, role, sides, path)


def _opened(folder: Path, asked: Asked) -> LoadedRecipe:
    loaded = open_recipe(folder, threads=asked.threads, provider=asked.provider)
    scales = dict(asked.mm_per_px)
    for test in read_selftests(folder, loaded.cameras):
        scales = {**test.mm_per_px, **scales}
    loaded.set_mm_per_px(scales)
    return loaded


def _role(champion: LoadedRecipe, asked: str) -> str:
    roles = champion.cameras
    if (not asked and len(roles) > 1) or (asked and asked not in roles):
        raise UsageError(
            f"recipe {champion.recipe_id} looks through {', '.join(roles)}",
            fix="say whose model to retrain: --view ROLE",
        )
    role = asked or roles[0]
    others = [other for other in roles if other != role]
    shared = [r for r in others if champion.views[r].section.model == champion.views[role].section.model]
    if shared:
        raise UsageError(
            f"views {role} and {', '.join(shared)} share one model file, and only one of them would be compared",
            fix="give each view a model file of its own in recipe.toml, and seal the recipe",
        )
    return role


def _require_classes(card: ModelCard, sides: Sides) -> None:
    """UsageError when a class is new to the recipe, or when the net would forget one because no part shows it."""
    if card.task == "anomaly":
        return
    everything = [*sides.taught.samples, *sides.holdout.samples, *(escape.sample for escape in sides.escapes)]
    everything += sides.calibration.samples if sides.calibration else ()
    strange = sorted({name for sample in everything for name in sample.defect_classes} - set(card.classes))
    if strange:
        raise UsageError(
            f"the recipe does not know the classes {', '.join(strange)}; it knows {', '.join(card.classes)}",
            fix="rename or leave out their labels; a new class is a new model (`lineside train`) and a new recipe",
        )
    shown = {name for sample in sides.taught.samples for name in sample.defect_classes}
    unseen = [name for name in card.classes if name not in shown]
    if unseen and not card.golden_guided:  # the golden net is taught every class by injected defects
        raise UsageError(
            f"no sample to learn from shows {', '.join(unseen)}: the net would forget what that looks like",
            fix="add samples of these classes, for example those the model was trained on",
        )


def _require_comparable(holdout: Dataset) -> None:
    """UsageError when a gate could not hold whatever is learnt, because the holdout shows nothing of what it compares."""
    defective = sum(sample.defective for sample in holdout.samples)
    for count, kind, rate in (
        (defective, "defective", "escapes"),
        (len(holdout.samples) - defective, "good", "overkill"),
    ):
        if not count:
            raise UsageError(
                f"none of the {len(holdout.samples)} parts held out is {kind}: {rate} could not be compared, and no training "
                "would give a recipe that can be promoted",
                fix=f"hold out {kind} parts as well: --holdout DATASET, or mark them with `lineside data split`; generated "
                "boards are good in part with `lineside data synth --defective 0.5`",
            )


def _require_timeable(champion: LoadedRecipe, role: str, deadline_ms: int) -> None:
    """UsageError when more time is asked for than a station gives, or when a whole part cannot be timed."""
    if deadline_ms > champion.deadline_ms:
        raise UsageError(
            f"--deadline-ms is {deadline_ms}, and by its recipe the station answers ERROR after {champion.deadline_ms} ms",
            fix="give no more than that; for a longer deadline write deadline_ms into recipe.toml and seal the recipe",
        )
    frames_beside(champion, role)


def _begin(asked: Asked, champion: LoadedRecipe, role: str, sides: Sides) -> None:
    """Claim the folder; UsageError when it holds a challenger already, or the retraining of something else.

    A plan without one of these keys, which an earlier version wrote, is another one: nobody knows what it was of.
    """
    plan = {
        "recipe_sha256": champion.sha256,
        "view": role,
        "taught": sides.taught.version,
        "calibration": sides.calibration.version if sides.calibration else "",
        "holdout": sides.holdout.version,
        "escapes": sorted(escape.digest for escape in sides.escapes),
        "seed": asked.seed,
        "minutes": asked.minutes,
        "epochs": asked.epochs,
    }
    if (asked.out / _RECIPE).exists():
        raise UsageError(f"{asked.out / _RECIPE} is there already", fix="choose a new folder with -o")
    path = asked.out / _PLAN
    if path.is_file():
        if _read_plan(path) != plan:
            raise UsageError(
                f"{asked.out} holds the unfinished retraining of another recipe or view, with other samples, or of another length",
                fix="choose a new folder with -o; to go on, give the same recipe, view, datasets, seed and length",
            )
        return
    if asked.out.exists() and (not asked.out.is_dir() or any(asked.out.iterdir())):
        raise UsageError(f"{asked.out} exists and is not an empty folder", fix="choose a new folder with -o")
    (asked.out / RUN).mkdir(parents=True)
    write_whole(path, (json.dumps(plan, indent=1) + "\n").encode())


def _read_plan(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None


def _tell(sides: Sides) -> None:
    counts = f"{len(sides.taught.samples)} parts to learn from, {len(sides.holdout.samples)} held out"
    print(f"{counts}, {len(sides.escapes)} earlier escapes", file=sys.stderr)
    print("\n".join(sides.notes), file=sys.stderr)


def _compared(asked: Asked, champion: LoadedRecipe, role: str, sides: Sides, path: Path) -> Outcome:
    """Make the challenger's folder, judge by both recipes, write what came out, seal."""
    partial = asked.out / _PARTIAL
    made.copy_recipe(asked.recipe, partial)
    _require_unchanged(asked.recipe, champion)
    model = partial / champion.views[role].section.model
    model.write_bytes(path.read_bytes())
    known = load_model(model).card.trained_on.images_sha256
    chosen = choose_limits(_opened(partial, asked).views[role], sides.calibration, known)
    write_card(model, chosen.card)
    if chosen.new:
        made.write_limits(partial, role, chosen.rules)
    loaded = _opened(partial, asked)
    judged = _judged(champion, loaded, role, sides, asked.deadline_ms)
    held, changed = gates(judged), changes(judged)
    flips = made.renew_selftests(loaded)
    facts = _facts(asked, champion, loaded, sides, chosen) | {
        "selftests_changed": [dict(zip(("frame", "before", "after"), flip, strict=True)) for flip in flips]
    }
    content = as_json(judged, held, changed, facts)
    write_whole(partial / made.COMPARISON, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    views = (champion.views[role], loaded.views[role])
    write_comparison_page(partial / made.PAGE, judged, held, changed, content, views)
    write_whole(partial / made.NOTE, _note(content, held, chosen).encode())
    folder = asked.out / _RECIPE
    made.seal_whole(partial, folder, asked.key)
    return Outcome(folder, held, changed)


def _require_unchanged(recipe: Path, champion: LoadedRecipe) -> None:
    """UsageError or ConfigError when what was copied is not the champion: much may happen while a net is trained."""
    verify(recipe)
    if lock_sha256(recipe) != champion.sha256:
        raise UsageError(
            f"another version came into force in {recipe} while this one was retrained",
            fix="retrain the version in force, into a new folder",
        )


def _judged(champion: LoadedRecipe, challenger: LoadedRecipe, role: str, sides: Sides, deadline_ms: int) -> Judged:
    old, new = champion.views[role], challenger.views[role]
    escaped = [escape.sample for escape in sides.escapes]
    return Judged(
        holdout=sides.holdout,
        champion=judge_all(old, sides.holdout.samples, "champion"),
        challenger=judge_all(new, sides.holdout.samples, "challenger"),
        escapes=sides.escapes,
        champion_escapes=judge_all(old, escaped, "champion, escapes"),
        challenger_escapes=judge_all(new, escaped, "challenger, escapes"),
        champion_latency=measure_latency(champion, role, sides.holdout),
        challenger_latency=measure_latency(challenger, role, sides.holdout),
        deadline_ms=deadline_ms or champion.deadline_ms,
    )


def _facts(asked: Asked, champion: LoadedRecipe, loaded: LoadedRecipe, sides: Sides, chosen: Chosen) -> dict[str, Any]:
    return {
        "recipe_id": champion.recipe_id,
        "champion_sha256": champion.sha256,
        "champion_model_sha256": champion.model_sha256,
        "challenger_model_sha256": loaded.model_sha256,
        "challenger_files": file_hashes(loaded.folder),
        "made_at": utc_now().isoformat(timespec="seconds"),
        "command": asked.command,
        "taught": {
            "dataset": sides.taught.name,
            "version": sides.taught.version,
            "parts": len(sides.taught.samples),
            "defective": sum(sample.defective for sample in sides.taught.samples),
        },
        "sides": list(sides.notes),
        "limits": {
            "new": chosen.new,
            "note": chosen.note,
            "classes": {limit.defect_class: [limit.ng_score, limit.review_score] for limit in chosen.card.limits},
        },
    }


def _note(content: dict[str, Any], held: Sequence[Gate], chosen: Chosen) -> str:
    """The version in a few lines, for who opens the folder."""
    lines = [
        f"recipe {content['recipe_id']}, retrained at {content['made_at']}",
        f"from version {content['champion_sha256']}",
        f"with dataset {content['taught']['dataset']} {content['taught']['version']}",
        f"compared on {content['holdout_parts']} held-out parts, version {content['holdout_version']}",
        f"limits {chosen.note}",
        *(
            f"{'held' if gate.held else 'NOT HELD'}: {gate.title}. {' '.join(filter(None, (gate.text, gate.few)))}"
            for gate in held
        ),
    ]
    return "\n".join(lines) + "\n"


def as_text(outcome: Outcome) -> str:
    """The result for people: gates, changed parts, where it lies."""
    lines = [f"{'held    ' if gate.held else 'NOT HELD'}  {gate.title}: {gate.text}" for gate in outcome.gates]
    lines += [f"warning: {gate.title}: {gate.few}" for gate in outcome.gates if gate.few]
    lines.append(f"{len(outcome.changed)} parts changed their verdict; see {outcome.folder / made.PAGE}")
    lines.append(f"challenger: {outcome.folder}")
    return "\n".join(lines)
