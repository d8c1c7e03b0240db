import cv2
import numpy as np
import pytest

from inspection.detector import Detector, StageClock, grey_of
from inspection.errors import CameraTimeout, ControllerError, FrameCorrupt, ModelError, RegistrationError
from inspection.geometry import tiles
from inspection.golden import GoldenTemplate, RegistrationLimits
from inspection.inspect_frame import error_verdict, inspect_frame
from inspection.model import LoadedModel
from inspection.predict import card_criteria
from inspection.types import Detection, Verdict

LIMITS = RegistrationLimits()
SIZES = [(1005, 803), (1290, 640), (651, 1283)]


def whole(model: LoadedModel) -> LoadedModel:
    """The same model with tiles so large that no frame here is cut."""
    return LoadedModel(model.path, model.card.model_copy(update={"tile_px": 4096}), model.sha256, model.session)


def large(golden: np.ndarray, width: int, height: int) -> np.ndarray:
    """A larger board of four mirrored copies."""
    board = np.block([[golden, golden[:, ::-1]], [golden[::-1], golden[::-1, ::-1]]])
    return np.ascontiguousarray(np.tile(board, (2, 2))[:height, :width])


def spoil(golden: np.ndarray, places: list[tuple[int, int]]) -> np.ndarray:
    """A copy with a blob of the other material at each place."""
    frame = golden.copy()
    for x, y in places:
        cv2.circle(frame, (x, y), 6, 0 if golden[y, x] > 128 else 255, -1, cv2.LINE_AA)
    return frame


def centre(found: Detection) -> tuple[float, float]:
    x1, y1, x2, y2 = found.region.xyxy_px
    return (x1 + x2) / 2, (y1 + y2) / 2


def near(findings: tuple[Detection, ...], x: float, y: float, least: float) -> list[Detection]:
    ends = [(found, centre(found)) for found in findings if found.score >= least]
    return [found for found, (u, v) in ends if abs(u - x) < 10 and abs(v - y) < 10]


def detect(model: LoadedModel, golden: np.ndarray, frame: np.ndarray) -> tuple[Detection, ...]:
    return Detector(model, GoldenTemplate(golden), LIMITS).look(frame, floor=0.05, clock=StageClock()).detections


def seam_places(width: int, height: int) -> list[tuple[int, int]]:
    """Places along every seam and a pixel or two beside it."""
    cores = [tile.core for tile in tiles(width, height, side=640, overlap=128)]
    across = sorted({core[2] for core in cores if np.isfinite(core[2])})
    down = sorted({core[3] for core in cores if np.isfinite(core[3])})
    places = [(round(x) + number % 5 - 2, y) for x in across for number, y in enumerate(range(30, height - 30, 40))]
    return places + [
        (x, round(y) + number % 5 - 2)
        for y in down
        for number, x in enumerate(range(30, width - 30, 40))
        if all(abs(x - seam) > 40 for seam in across)
    ]


def somewhere(width: int, height: int) -> list[tuple[int, int]]:
    """A jittered grid all over the frame."""
    rng = np.random.default_rng(4)
    return [
        (int(x + rng.integers(0, 30)), int(y + rng.integers(0, 30)))
        for x in range(20, width - 60, 70)
        for y in range(20, height - 60, 70)
    ]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spots", [seam_places, somewhere])
def test_defect_is_found_once_wherever_it_lies(
    demo_model: LoadedModel, demo_golden: np.ndarray, size: tuple[int, int], spots: type
) -> None:
    """What the model sees in the uncut frame it sees in the tiles, once and at the same place, seams included."""
    golden, places = large(demo_golden, *size), spots(*size)
    frame = spoil(golden, places)
    cut, uncut = detect(demo_model, golden, frame), detect(whole(demo_model), golden, frame)
    sure = [place for place in places if near(uncut, *place, 0.5)]
    assert len(sure) > 0.5 * len(places)
    counts = [len(near(cut, *place, 0.3)) for place in sure]
    once = [len(near(uncut, *place, 0.3)) for place in sure]
    assert [] == [(place, n) for place, n, m in zip(sure, counts, once, strict=True) if not 1 <= n <= max(1, m)]
    for place in sure:
        (u, v), (x, y) = centre(near(cut, *place, 0.3)[0]), centre(near(uncut, *place, 0.3)[0])
        assert abs(u - x) < 4
        assert abs(v - y) < 4


@pytest.mark.parametrize("size", SIZES)
def test_tiles_add_no_finding_of_their_own(
    demo_model: LoadedModel, demo_golden: np.ndarray, size: tuple[int, int]
) -> None:
    """Cutting a frame gives no sure finding where the uncut frame gives none at all."""
    golden = large(demo_golden, *size)
    frame = spoil(golden, somewhere(*size)[::3])
    uncut = detect(whole(demo_model), golden, frame)
    sure = [found for found in detect(demo_model, golden, frame) if found.score > 0.6]
    assert sure
    assert all(near(uncut, *centre(found), 0.05) for found in sure)


@pytest.mark.parametrize("size", [(640, 640), (333, 457), (641, 129), (65, 400)])
def test_any_size_is_judged_in_its_own_pixels(
    demo_model: LoadedModel, demo_golden: np.ndarray, size: tuple[int, int]
) -> None:
    """Sizes that are no multiples of 16 work, and every box lies inside the frame."""
    golden = large(demo_golden, *size)
    frame = spoil(golden, [(size[0] // 2, size[1] // 2), (size[0] - 12, size[1] - 12)])
    found = detect(demo_model, golden, frame)
    assert near(found, size[0] // 2, size[1] // 2, 0.3)
    for one in found:
        x1, y1, x2, y2 = one.region.xyxy_px
        assert 0 <= x1 < x2 <= size[0]
        assert 0 <= y1 < y2 <= size[1]


def test_good_board_has_no_sure_finding(demo_model: LoadedModel, demo_golden: np.ndarray) -> None:
    """A large frame that is its golden gives nothing from the model's threshold on."""
    golden = large(demo_golden, 1005, 803)
    assert all(found.score < demo_model.card.threshold for found in detect(demo_model, golden, golden.copy()))


def test_moved_large_board_is_judged_as_when_it_lay_straight(demo_model: LoadedModel, demo_golden: np.ndarray) -> None:
    """Each tile is aligned by itself: a moved board gives the defect, in pixels of the frame, and nothing else sure."""
    golden = large(demo_golden, 1005, 803)
    matrix = np.array([[1, 0, 7.0], [0, 1, -5.0]])
    frame = cv2.warpAffine(spoil(golden, [(502, 400)]), matrix, golden.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    sure = [one for one in detect(demo_model, golden, frame) if one.score >= demo_model.card.threshold]
    assert near(tuple(sure), 509, 395, 0.3)
    assert all(near((one,), 509, 395, 0.3) for one in sure)


def test_colour_frame_is_judged_by_its_luma(demo_model: LoadedModel, demo_golden: np.ndarray) -> None:
    """An RGB frame of grey pixels gives what the grey frame gives."""
    grey = spoil(demo_golden, [(300, 300), (100, 500)])
    colour = np.repeat(grey[:, :, None], 3, 2)
    assert detect(demo_model, demo_golden, grey) == detect(demo_model, demo_golden, colour)
    assert grey_of(grey) is grey
    assert grey_of(np.full((2, 2, 3), (255, 0, 0), np.uint8))[0, 0] == 76


def test_findings_come_best_first_and_above_the_floor(demo_model: LoadedModel, demo_golden: np.ndarray) -> None:
    """The floor is the least score listed; a lower floor only adds findings."""
    frame, golden = spoil(demo_golden, somewhere(640, 640)), GoldenTemplate(demo_golden)
    lists = [
        Detector(demo_model, golden, LIMITS).look(frame, floor=floor, clock=StageClock()).detections
        for floor in (0.5, 0.02)
    ]
    scores = [found.score for found in lists[1]]
    assert sorted(scores, reverse=True) == scores
    assert lists[0] == tuple(found for found in lists[1] if found.score >= 0.5)


def test_detector_is_pure(demo_model: LoadedModel, demo_golden: np.ndarray) -> None:
    """The same frame gives the same findings again, and is not written to."""
    frame = spoil(large(demo_golden, 700, 700), [(320, 320)])
    before, golden = frame.tobytes(), large(demo_golden, 700, 700)
    detector = Detector(demo_model, GoldenTemplate(golden), LIMITS)
    first, second = (detector.look(frame, floor=0.02, clock=StageClock()).detections for _ in range(2))
    assert first == second
    assert before == frame.tobytes()


def test_every_stage_is_timed(demo_model: LoadedModel, demo_golden: np.ndarray) -> None:
    """The clock names registration, laying over and inference, and their sum is the total."""
    clock = StageClock()
    Detector(demo_model, GoldenTemplate(demo_golden), LIMITS).look(demo_golden, floor=0.5, clock=clock)
    assert ["register", "lay_over", "infer"] == list(clock.stages)
    assert sum(clock.stages.values()) == clock.total()


@pytest.mark.parametrize("shape", [(640, 640), (50, 30), (2000, 2000)])
def test_warm_up_takes_any_frame_size(demo_model: LoadedModel, demo_golden: np.ndarray, shape: tuple[int, int]) -> None:
    """The first inference can be done before the first part, whatever the size."""
    Detector(demo_model, GoldenTemplate(demo_golden), LIMITS).warm_up(shape)


def test_golden_guided_model_without_golden_is_refused(demo_model: LoadedModel) -> None:
    """A model that compares cannot be built without what it compares with."""
    with pytest.raises(ModelError, match="compares with a golden"):
        Detector(demo_model, None, LIMITS)


def test_golden_guided_model_in_colour_is_refused(demo_model: LoadedModel, demo_golden: np.ndarray) -> None:
    """What the runtime cannot do is said when the detector is built, not at the first part."""
    card = demo_model.card.model_copy(update={"channels": 3})
    with pytest.raises(ModelError, match="compares colour frames"):
        Detector(LoadedModel(demo_model.path, card, "", demo_model.session), GoldenTemplate(demo_golden), LIMITS)


def test_frame_that_cannot_be_registered_has_no_findings_but_an_error(
    demo_model: LoadedModel, demo_golden: np.ndarray
) -> None:
    """Another board raises; it never gives an empty list."""
    with pytest.raises(RegistrationError):
        detect(demo_model, demo_golden, np.ascontiguousarray(demo_golden.T[::-1]))


@pytest.mark.parametrize(
    ("frame", "rule"),
    [
        (np.zeros((640, 640), np.uint8), "quality.brightness"),
        (np.full((640, 640), 128, np.uint8), "quality.contrast"),
        (
            np.kron(np.random.default_rng(3).integers(0, 2, (40, 40)) * 255, np.ones((16, 16))).astype(np.uint8),
            "golden.",
        ),
        (
            np.kron(np.random.default_rng(3).integers(0, 2, (40, 20)) * 255, np.ones((16, 16))).astype(np.uint8),
            "golden.",
        ),
    ],
    ids=["dark", "uniform", "another board", "another size"],
)
def test_failure_on_the_way_is_an_error_verdict(
    demo_model: LoadedModel, demo_golden: np.ndarray, frame: np.ndarray, rule: str
) -> None:
    """A frame that cannot be judged is ERROR with its reason and without findings, and is not OK."""
    detector = Detector(demo_model, GoldenTemplate(demo_golden), LIMITS)
    seen = inspect_frame(frame, detector, card_criteria(demo_model))
    assert seen.judgement.verdict == Verdict.ERROR
    assert seen.judgement.reasons[0].rule_id.startswith(rule)
    assert () == seen.detections


def test_good_and_bad_board_are_told_apart(demo_model: LoadedModel, demo_golden: np.ndarray) -> None:
    """The golden itself is OK; with blobs on it, it is NG for its findings."""
    detector, criteria = Detector(demo_model, GoldenTemplate(demo_golden), LIMITS), card_criteria(demo_model)
    assert inspect_frame(demo_golden, detector, criteria).judgement.verdict == Verdict.OK
    bad = inspect_frame(spoil(demo_golden, somewhere(640, 640)[::9]), detector, criteria)
    assert bad.judgement.verdict == Verdict.NG
    assert {"quality", "register", "lay_over", "infer", "judge"} == {name for name, _ in bad.stage_ms}


@pytest.mark.parametrize(
    ("error", "rule"),
    [
        (CameraTimeout("no frame", fix="look"), "camera.timeout"),
        (FrameCorrupt("torn", fix="look"), "camera.corrupt"),
        (ModelError("broken", fix="look"), "detector.failed"),
        (RegistrationError("askew", fix="look"), "golden.registration"),
        (ControllerError("gone", fix="look"), "station.failed"),
    ],
)
def test_each_kind_of_failure_has_its_rule(error: ModelError, rule: str) -> None:
    """The reason code of the controller follows from the kind of error; what and fix are told."""
    judgement = error_verdict(error)
    assert (judgement.verdict, judgement.reasons[0].rule_id) == (Verdict.ERROR, rule)
    assert f"{error.what}; {error.fix}" == judgement.reasons[0].text
