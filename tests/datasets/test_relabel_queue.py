import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.relabel.looks import Look, copies, look_at, looks_of
from datasets.relabel.queue import Ranked, rank
from datasets.sample import LabelledBox, Sample
from datasets.synth.boards import generate_pair
from datasets.synth.camera import CameraModel
from inspection.errors import UsageError
from inspection.images import read_grey, write_png
from inspection.inspect_frame import Inspection
from inspection.judge import Rule
from inspection.predict import Prediction
from inspection.types import Box, Detection, Judgement, Region, Verdict, error_judgement

Build = Callable[..., Sample]
PLACE: Box = (10.0, 10.0, 30.0, 30.0)
NOWHERE = Path("nowhere.png")


def sample(name: str, *labels: str, image_class: str = "") -> Sample:
    boxes = tuple(LabelledBox(label, PLACE) for label in labels)
    return Sample(NOWHERE, None, boxes, "board", "", name, image_class)


def said(*findings: tuple[str, float], box: Box = PLACE) -> Prediction:
    detections = tuple(Detection(name, score, Region(box)) for name, score in findings)
    return Prediction("frame.png", Inspection(Judgement(Verdict.OK), detections, ()), 1.0)


NOT_JUDGED = Prediction("frame.png", Inspection(error_judgement("frame", "no board in sight"), (), ()), 0.0)


def look(*features: float) -> Look:
    """A picture that is no copy of any."""
    return Look(np.array(features, np.float32), None, np.zeros((32, 47), np.complex64))


def names(queue: Sequence[Ranked]) -> list[str]:
    return [place.name for place in queue]


SAME = look(0.5, 0.0)  # all pictures alike as far as can be told, none a copy


def order_of(predictions: dict[str, Prediction], **options: object) -> list[str]:
    samples = options.pop("samples", None) or [sample(name) for name in predictions]
    looks = {one.name: SAME for one in samples}  # type: ignore[attr-defined]
    return names(rank(samples, predictions, looks=looks, **options))  # type: ignore[arg-type]


SCORES = st.floats(0.0, 1.0, allow_nan=False)
FINDINGS = st.lists(st.tuples(st.sampled_from(["open", "short", "spur"]), SCORES), max_size=4)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Sample], dict[str, Prediction], frozenset[str], dict[str, Look]]:
    """Samples with and without labels, predictions, looks; some reviewed, some not judged, some without a look."""
    samples, predictions, reviewed, looks = [], {}, set(), {}
    for number in range(draw(st.integers(0, 9))):
        name = f"part {number}"
        samples.append(sample(name, *draw(st.lists(st.sampled_from(["open", "short", "hole"]), max_size=3))))
        found = draw(st.one_of(st.none(), st.just(NOT_JUDGED), FINDINGS.map(lambda rows: said(*rows))))
        if found is not None:
            predictions[name] = found
        if draw(st.booleans()):
            reviewed.add(name)
        if draw(st.integers(0, 4)):
            looks[name] = look(*draw(st.tuples(*[st.floats(0, 0.6875, width=32)] * 2)))
    return samples, predictions, frozenset(reviewed), looks


@given(cases(), st.randoms())
def test_order_of_the_samples_given_does_not_matter(case: tuple, random) -> None:  # type: ignore[no-untyped-def, type-arg]
    """The same samples in another order make the same queue."""
    samples, predictions, reviewed, looks = case
    shuffled = list(samples)
    random.shuffle(shuffled)
    expected = rank(samples, predictions, reviewed=reviewed, looks=looks)
    assert expected == rank(shuffled, dict(reversed(predictions.items())), reviewed=reviewed, looks=looks)


@given(cases())
def test_every_sample_stands_in_the_queue_once(case: tuple) -> None:  # type: ignore[type-arg]
    """Ranked or folded under one that is, never both, never lost; ranks count from 1 and reasons lie in 0..1."""
    samples, predictions, reviewed, looks = case
    queue = rank(samples, predictions, reviewed=reviewed, looks=looks)
    everyone = [name for place in queue for name in (place.name, *place.folded)]
    assert sorted(one.name for one in samples) == sorted(everyone)
    assert list(range(1, len(queue) + 1)) == [place.rank for place in queue]
    assert all(0.0 <= value <= 1.0 for place in queue for value in place.reasons.values())
    assert all(list(place.reasons) == ["uncertainty", "disagreement", "novelty", "balance"] for place in queue)


@given(st.permutations([0.02, 0.12, 0.2, 0.3, 0.4]))
def test_the_nearer_to_the_limit_the_earlier(scores: list[float]) -> None:
    """Of samples with one finding each, that with the score nearest to the limit comes first."""
    assert sorted(map(str, scores), reverse=True) == order_of({str(score): said(("open", score)) for score in scores})


def test_many_middling_findings_come_before_one() -> None:
    """Each finding in doubt is a label that teaches."""
    predictions = {"a": said(("open", 0.4)), "b": said(*[("open", 0.3)] * 5), "c": said(*[("open", 0.99)] * 9)}
    assert ["b", "a", "c"] == order_of(predictions)


def test_limits_of_the_model_count() -> None:
    """In doubt is what lies in the model's own review band, not what lies near some fixed score."""
    predictions = {"a": said(("open", 0.4)), "b": said(("open", 0.97))}
    assert ["b", "a"] == order_of(predictions, rules=[Rule("open", 0.98, 0.95)])
    assert ["a", "b"] == order_of(predictions)


def test_what_could_not_be_judged_is_not_passed_over() -> None:
    """A frame that gave ERROR and one without a prediction are as uncertain as can be."""
    samples = [sample("a"), sample("b"), sample("c")]
    queue = rank(samples, {"a": said(("open", 0.4)), "c": NOT_JUDGED}, looks={})
    assert {"a": 0.5, "b": 1.0, "c": 1.0} == {place.name: place.reasons["uncertainty"] for place in queue}
    assert "a" == queue[-1].name


def test_contradiction_to_a_person_comes_before_agreement() -> None:
    """A false call, a miss and a wrong class come before findings that agree; agreement stands last."""
    samples = [sample("agreed", "open"), sample("good"), sample("missed", "open"), sample("other", "open")]
    samples += [sample("called"), sample("elsewhere", "open")]
    predictions = {
        "agreed": said(("open", 0.99)),
        "good": said(),
        "missed": said(("open", 0.01)),
        "other": said(("short", 0.99)),
        "called": said(("open", 0.9)),
        "elsewhere": said(("open", 0.95), box=(50.0, 50.0, 70.0, 70.0)),
    }
    order = order_of(predictions, samples=samples, reviewed=set(predictions))
    assert ["other", "elsewhere", "missed", "called", "agreed", "good"] == order


def test_class_of_the_image_is_compared_where_there_are_no_boxes() -> None:
    """A part that a person called dented and the model scratched is a contradiction; dented at 0.9 hardly is one."""
    samples = [sample("a", image_class="dent"), sample("b", image_class="dent")]
    predictions = {"a": said(("dent", 0.9)), "b": said(("scratch", 0.9))}
    assert ["b", "a"] == order_of(predictions, samples=samples, reviewed={"a", "b"})


def test_labels_nobody_vouched_for_count_but_their_absence_does_not() -> None:
    """Imported boxes that the model contradicts are worth a look; a sample without labels is not taken for good."""
    samples = [sample("a"), sample("b", "short")]
    order = rank(samples, {"a": said(("open", 0.99)), "b": said(("open", 0.99))}, looks={})
    assert ["b", "a"] == names(order)
    assert 0.0 == order[1].reasons["disagreement"]


def test_rare_classes_come_first() -> None:
    """Of two samples of which the model is equally sure, that with the class that has few labels teaches more."""
    known = [sample(f"known {number}", "open") for number in range(9)] + [sample("known spur", "spur")]
    predictions = {"a": said(("open", 0.9)), "b": said(("spur", 0.9))}
    order = order_of(predictions, samples=[*known, sample("a"), sample("b")], reviewed={one.name for one in known})
    assert ["b", "a"] == order[:2]


@settings(max_examples=20)
@given(st.integers(3, 5), st.integers(0, 2**16))
def test_the_first_places_are_not_of_one_kind(kinds: int, seed: int) -> None:
    """Where the model doubts one kind of part most, the other kinds still come up within the first places."""
    rng = np.random.default_rng(seed)
    samples, predictions, looks = [], {}, {}
    for kind in range(kinds):
        for number in range(20):
            name = f"{kind} {number}"
            samples.append(sample(name))
            # The first kind is in doubt with eight findings, the others with three.
            predictions[name] = said(*[("open", 0.4)] * (3 if kind else 8))
            place = np.zeros(kinds)
            place[kind] = 0.7
            looks[name] = look(*(place + rng.uniform(0, 0.02, kinds)))
    first = names(rank(samples, predictions, looks=looks))[: 2 * kinds]
    assert {str(kind) for kind in range(kinds)} == {name.split()[0] for name in first}


def test_what_looks_like_labelled_pictures_waits() -> None:
    """With equal doubt the picture farthest from those that are labelled comes first."""
    samples, looks = [sample("known"), sample("near"), sample("far")], {}
    looks = {"known": look(0.6, 0.0), "near": look(0.6, 0.05), "far": look(0.0, 0.6)}
    queue = rank(samples, {"near": said(("open", 0.4)), "far": said(("open", 0.4))}, reviewed={"known"}, looks=looks)
    assert ["far", "near", "known"] == names(queue)
    assert queue[0].reasons["novelty"] == pytest.approx(0.849, abs=0.001)


def test_two_samples_of_one_name_are_a_mistake_of_the_caller() -> None:
    """Predictions go by name."""
    with pytest.raises(ValueError, match="same name"):
        rank([sample("a"), sample("a")], {}, looks={})


def unit(folder: Path, name: str, seed: int, golden: np.ndarray | None) -> Sample:
    """A unit of a board with defects of its own, photographed by a camera that moves a little, beside its golden."""
    rng = np.random.default_rng([7, seed])
    pair = generate_pair(rng, golden, size_px=(320, 320), defects=4, camera=CameraModel())
    write_png(folder / f"{name}.png", pair.frame)
    write_png(folder / f"{name}.golden.png", pair.golden)
    return Sample(folder / f"{name}.png", folder / f"{name}.golden.png", (), "board", "", name)


def copy_of(original: Sample, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Sample:
    """The sample with its frame, and its golden, changed alike."""
    assert original.golden is not None
    paths = [path.with_name(f"{name}{end}.png") for path, end in ((original.image, ""), (original.golden, ".golden"))]
    for path, source in zip(paths, (original.image, original.golden), strict=True):
        write_png(path, change(read_grey(source)))
    return replace(original, image=paths[0], golden=paths[1], name=name)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relit": lambda image: cv2.convertScaleAbs(image, alpha=0.9, beta=10),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "by 90": lambda image: np.ascontiguousarray(np.rot90(image)),
    "recompressed": lambda image: cv2.imdecode(cv2.imencode(".jpg", image)[1], cv2.IMREAD_GRAYSCALE),
}


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Twelve units of one board, too few to tell by the pictures alone what is common to all."""
    folder = tmp_path_factory.mktemp("units")
    first = unit(folder, "unit 00", 0, None)
    assert first.golden is not None
    golden = read_grey(first.golden)
    return [first, *(unit(folder, f"unit {number:02}", number, golden) for number in range(1, 12))]


@pytest.mark.parametrize("change", CHANGES)
def test_copies_stand_once_and_units_of_one_board_each(units: list[Sample], change: str) -> None:
    """A copy of a frame is folded under it; frames of the same board with other defects are not copies."""
    samples = [*units, copy_of(units[3], f"unit 03 {change}", CHANGES[change])]
    queue = rank(samples, {one.name: said(("open", 0.4)) for one in samples})
    folds = {frozenset((place.name, *place.folded)) for place in queue if place.folded}
    assert {frozenset(("unit 03", f"unit 03 {change}"))} == folds


def test_what_a_person_looked_at_is_never_folded_away(units: list[Sample]) -> None:
    """A copy of a labelled frame stands beside it, and a copy of which the model says something else stands alone."""
    samples = [*units[:4], copy_of(units[3], "twin", CHANGES["relit"])]
    assert 5 == len(rank(samples, {}, reviewed={"unit 03"}))
    assert 5 == len(rank(samples, {"twin": said(("open", 0.9)), "unit 03": said()}))
    assert 4 == len(rank(samples, {"twin": said(("open", 0.9)), "unit 03": said(("open", 0.8))}))


def test_a_copy_of_a_labelled_frame_is_no_news(units: list[Sample]) -> None:
    """However it lies: what it shows is labelled."""
    samples = [*units[:4], copy_of(units[3], "twin", CHANGES["by 90"])]
    predictions = {one.name: said(("open", 0.4)) for one in samples if one.name != "unit 03"}
    queue = rank(samples, predictions, reviewed={"unit 03"})
    assert ["twin", "unit 03"] == names(queue)[-2:]
    assert 0.0 == queue[-2].reasons["novelty"]


def test_copies_without_goldens(make_sample: Build) -> None:
    """Of few pictures only the nearly equal ones are copies."""
    samples = [make_sample("a"), make_sample("b")]
    twin = make_sample("c", image=read_grey(samples[0].image))
    assert [("a", "c")] == copies(["a", "b", "c"], looks_of([*samples, twin]))


def test_an_image_that_is_gone_keeps_its_place(make_sample: Build, caplog: pytest.LogCaptureFixture) -> None:
    """A sample whose image was deleted is logged and stays in the queue: nothing is dropped in silence."""
    samples = [make_sample("here"), make_sample("gone")]
    samples[1].image.unlink()
    with caplog.at_level(logging.WARNING, logger="lineside"):
        queue = rank(samples, {})
    assert ["gone", "here"] == sorted(names(queue))
    assert ["relabel.image_unreadable"] == [record.getMessage() for record in caplog.records]
    with pytest.raises(UsageError):
        look_at(samples[1])


def test_distance_of_two_pictures_is_at_most_one(make_sample: Build) -> None:
    """Features have unit length at most and no negative number, so that novelty needs no scale of the dataset."""
    black = make_sample("black", image=np.zeros((40, 50), np.uint8), golden=False)
    for one in (make_sample("pattern", golden=True), black):
        features = look_at(one).features
        assert (208,) == features.shape
        assert (features >= 0).all()
        assert float(features @ features) <= 0.5 + 1e-6
