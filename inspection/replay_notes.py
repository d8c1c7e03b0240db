"""What is known of why a record and its replay differ: names that contradict each other, pictures, measured values."""

from collections.abc import Mapping, Sequence

from inspection.chain_place import NOT_WRITTEN
from inspection.evidence import file_name
from inspection.judged_on import judged_on
from inspection.picture_state import PictureState, in_words
from inspection.recipe import LoadedRecipe
from inspection.recipe_config import GOLDEN
from inspection.replay_difference import Difference
from inspection.types import Record, Verdict

DEADLINE = "station.deadline"
# What other processors and engines were seen to differ by (score 0.00016, 0.012 px, 0.0001), with room to spare.
_ROUNDING = {"finding.score": 0.002, "finding.box": 0.1, "measured": 0.001}
_OF_PICTURE = ("sharpness", "brightness", "contrast")  # what is measured of the picture alone


def in_a_sentence(state: PictureState) -> str:
    """What became of a picture, with its name."""
    return f"picture {state.name}: {in_words(state)}"


def of_origin(record: Record, loaded: LoadedRecipe) -> tuple[Difference, ...]:
    """Names in the record that its own recipe version contradicts."""
    pairs = {
        "model": (record.model_sha256, loaded.model_sha256),
        "recipe_id": (record.recipe_id or loaded.recipe_id, loaded.recipe_id),
    }
    return tuple(
        Difference(name, f"{name}: the record says {said!r}, the recipe version that it names has {has!r}")
        for name, (said, has) in pairs.items()
        if said != has
    )


def of_chain(altered: Sequence[str]) -> tuple[Difference, ...]:
    """What the chain of the store has against the record, whatever the inspection makes of it."""
    if not altered:
        return ()
    text = " and ".join(NOT_WRITTEN[word] for word in altered)
    return (Difference("record.altered", f"the record is NOT as it was written: {text}"),)


def of_lateness(record: Record) -> tuple[Difference, ...]:
    """What a record with a late result says that the station would not have said of it."""
    if record.late is None:
        return ()
    found = []
    rules = [reason.rule_id for reason in record.judgement.reasons]
    if (record.judgement.verdict, rules) != (Verdict.ERROR, [DEADLINE]):
        text = f"{record.judgement.verdict.name} by {', '.join(rules) or 'nothing'}, though its result was late"
        found.append(Difference("verdict", f"verdict: {text}: the station answers ERROR by {DEADLINE}"))
    if record.frame_ids and record.detections != record.late.detections:
        found.append(Difference("late", "the record names other findings than its own late result"))
    return tuple(found)


def of_pictures(loaded: LoadedRecipe, pictures: Mapping[str, PictureState]) -> tuple[Difference, ...]:
    """Pictures that are not what was written, whatever the inspection makes of them."""
    return tuple(
        Difference("picture.altered", in_a_sentence(state), role)
        for role in loaded.cameras
        for name in (role, f"{role}{GOLDEN}")
        if (state := pictures.get(file_name(name, "no-role"))) is not None and state.state == "altered"
    )


def notes(
    record: Record, loaded: LoadedRecipe, pictures: Mapping[str, PictureState], found: Sequence[Difference]
) -> list[str]:
    """What is known of why something differs; of pictures that are not the written ones also when nothing does."""
    told = [in_a_sentence(state) for state in pictures.values() if state.state == "compressed"]
    if not found:
        return told
    told += [in_a_sentence(state) for state in pictures.values() if state.state == "unentered"]
    told += _of_measures(record, loaded, pictures, found)
    if not record.judged_on and any(view.needs_scale for view in loaded.views.values()):
        told.append(
            "millimetres are by [scale_mm_per_px] of the station's config as it is today: this record does not keep it"
        )
    if _is_rounding(found):
        told.append(
            "differences so small are what another processor, provider or version of the engine gives; that alone does not "
            "show that picture and record are untouched"
        )
    told.append(_of_engines(dict(record.judged_on), dict(judged_on(loaded))))
    told.append("`lineside audit` tells whether record and pictures are as they were written")
    return told


def _of_engines(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """In which versions, processor, provider and threads the two inspections differ."""
    if not then:
        return "with which versions, processor, provider and number of threads it was judged is not in this record"
    both = [(name, then.get(name, "-"), now.get(name, "-")) for name in {**then, **now}]
    told = [f"{name} ({before} then, {after} now)" for name, before, after in both if before != after]
    if not told:
        return "versions, processor, provider and number of threads are those that it was judged with"
    return "it was judged with another " + ", ".join(told)


def _is_rounding(found: Sequence[Difference]) -> bool:
    """Whether everything differs by no more than processors do among themselves, and nothing in kind."""
    return all(one.what in _ROUNDING and 0 < one.by <= _ROUNDING[one.what] for one in found)


def _of_measures(
    record: Record, loaded: LoadedRecipe, pictures: Mapping[str, PictureState], found: Sequence[Difference]
) -> list[str]:
    """What the measured values tell of where a difference comes from."""
    if not record.measured:
        return [
            f"a record of schema {record.schema} keeps nothing measured, so nothing tells the picture from another one"
        ]
    told = []
    for role in loaded.cameras:
        moved = [one.text.partition(":")[0] for one in found if one.what == "measured" and one.camera == role]
        state = pictures.get(file_name(role, "no-role"))
        if not {f"{role}.{quantity}" for quantity in _OF_PICTURE} & set(moved):
            lies = " and lies otherwise on its golden" if moved else ""
            told.append(f"the picture of camera {role} measures as it did{lies}")
        elif state is not None and state.state == "whole":
            text = "measures otherwise, and is as it was written: the record was altered, or measuring has changed"
            told.append(f"the picture of camera {role} {text}")
        else:
            told.append(f"the picture of camera {role} is not the one that was judged: it measures otherwise")
    return told
