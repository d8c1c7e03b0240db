import sys
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from inspection.errors import DriverMissing, SerialError
from inspection.serials import LONGEST, SerialSection, read_serial, require_reader, resolve_serial
from inspection.types import Verdict

zxingcpp = pytest.importorskip("zxingcpp", reason='codes are read by zxing-cpp: pip install "lineside[codes]"')

Image = NDArray[np.uint8]
TEXT = "SN-2026-000123"
FORMATS = ("DataMatrix", "QRCode", "Code128")
PRINTED = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=24)


def label(text: str, code_format: str = "DataMatrix", *, module_px: int = 4) -> Image:
    """A printed label (H, W) uint8: a black code on white with its light border."""
    code = zxingcpp.create_barcode(text, getattr(zxingcpp.BarcodeFormat, code_format))
    image = np.array(code.to_image(scale=module_px))
    image = image[:80] if code_format == "Code128" else image
    edge = 4 * module_px
    return cv2.copyMakeBorder(image, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=255)


def photograph(
    label: Image, *, angle: float = 0, blur: float = 0, noise: float = 0, inverted: bool = False, seed: int = 0
) -> Image:
    """The label seen by a camera: turned on a grey part, blurred, with the grain of the sensor."""
    grey = np.where((label > 127) != inverted, 205, 55).astype(np.float32)
    side = int(np.hypot(*grey.shape)) + 60
    turn = cv2.getRotationMatrix2D((grey.shape[1] / 2, grey.shape[0] / 2), angle, 1)
    turn[:, 2] += (side - grey.shape[1]) / 2, (side - grey.shape[0]) / 2
    seen = cv2.warpAffine(grey, turn, (side, side), borderValue=130)
    seen = cv2.GaussianBlur(seen, (0, 0), blur) if blur else seen
    grain = np.random.default_rng(seed).normal(0, noise, seen.shape) if noise else 0
    return np.clip(seen + grain, 0, 255).astype(np.uint8)


def on_board(board: Image, label: Image, x: int, y: int) -> Image:
    """The board with the label glued on it."""
    seen = board.copy()
    seen[y : y + label.shape[0], x : x + label.shape[1]] = label
    return seen


def refused(image: Image | None, **section: Any) -> SerialError:
    with pytest.raises(SerialError) as caught:
        read_serial(image, SerialSection(**section))
    assert caught.value.fix
    return caught.value


# ---- reading


@pytest.mark.parametrize("code_format", FORMATS)
def test_code_is_read(code_format: str) -> None:
    """Text, kind and corners of each kind of code come from the picture."""
    read = read_serial(label(TEXT, code_format), SerialSection())
    assert (TEXT, code_format) == (read.text, read.format)
    (left, top), _, (right, bottom), _ = read.corners
    assert 10 < left < right
    assert 10 < top < bottom or code_format == "Code128"


@pytest.mark.parametrize("angle", [0, 7, 15, 30, 45, 60, 90, 133, 180, 200, 271, 345])
@pytest.mark.parametrize("code_format", FORMATS)
def test_code_is_read_at_any_angle(code_format: str, angle: int) -> None:
    """Nobody glues labels straight."""
    assert TEXT == read_serial(photograph(label(TEXT, code_format), angle=angle), SerialSection()).text


@pytest.mark.parametrize(
    "seen",
    [{"blur": 1.5, "noise": 5}, {"noise": 25}, {"inverted": True}, {"inverted": True, "blur": 1.0, "noise": 10}],
    ids=str,
)
@pytest.mark.parametrize("code_format", FORMATS)
@pytest.mark.parametrize("angle", [0, 22, 90])
def test_code_is_read_blurred_noisy_and_inverted(code_format: str, seen: dict[str, Any], angle: int) -> None:
    """A little out of focus, grainy, or etched light on dark, the code still reads as it is."""
    image = photograph(label(TEXT, code_format), angle=angle, seed=angle, **seen)
    assert TEXT == read_serial(image, SerialSection()).text


@pytest.mark.parametrize("code_format", ["DataMatrix", "QRCode"])
def test_small_code_is_read(code_format: str) -> None:
    """Two pixels a module are enough for a sharp code."""
    image = photograph(label(TEXT, code_format, module_px=2), angle=20, noise=2)
    assert TEXT == read_serial(image, SerialSection()).text


@pytest.mark.parametrize("angle", [0, 12, 90])
@pytest.mark.parametrize("code_format", FORMATS)
def test_code_is_read_on_a_board(code_format: str, angle: int, demo_golden: Image) -> None:
    """Pads and tracks around the label are no hindrance, and the corners lie where the label is."""
    sticker = label(TEXT, code_format, module_px=3 if code_format != "Code128" else 2)
    sticker = photograph(sticker, angle=angle, noise=3)
    board = cv2.resize(demo_golden, (1200, 1200))
    read = read_serial(on_board(board, sticker, 300, 200), SerialSection())
    assert TEXT == read.text
    assert all(300 <= x < 300 + sticker.shape[1] and 200 <= y < 200 + sticker.shape[0] for x, y in read.corners)


def test_code_is_read_in_colour() -> None:
    """A colour frame reads as its grey picture does."""
    grey = label(TEXT)
    assert TEXT == read_serial(np.dstack([grey, grey, grey // 2 + 100]), SerialSection()).text


@given(PRINTED, st.sampled_from(FORMATS))
def test_what_is_printed_is_what_is_read(text: str, code_format: str) -> None:
    """Every printable text comes back unchanged through each kind of code."""
    assert text == read_serial(label(text, code_format, module_px=3), SerialSection()).text


@pytest.mark.parametrize("text", ["äöüß", "部品1234"])
def test_letters_of_other_languages_are_read(text: str) -> None:
    """Serials are no matter of ASCII."""
    assert text == read_serial(label(text, "QRCode"), SerialSection()).text


# ---- refusing


def test_frame_without_a_code_is_unreadable(demo_golden: Image) -> None:
    """No code is an error with words, never an empty serial."""
    error = refused(demo_golden)
    assert "serial.unreadable" == error.rule_id
    assert "DataMatrix or QRCode or Code128" in error.what


@pytest.mark.parametrize("shape", [(1, 1), (2, 300), (300, 2), (16, 16)])
def test_tiny_frame_is_unreadable(shape: tuple[int, int]) -> None:
    """Nothing to see is no crash."""
    assert "serial.unreadable" == refused(np.zeros(shape, np.uint8)).rule_id


def test_code_out_of_focus_is_unreadable() -> None:
    """What is blurred beyond reading is not guessed."""
    assert "serial.unreadable" == refused(photograph(label(TEXT), blur=5)).rule_id


def test_two_different_codes_are_ambiguous() -> None:
    """With two labels on a part nobody can say which one it is; both are named."""
    error = refused(np.hstack([label("SN-1"), label("SN-2")]))
    assert "serial.ambiguous" == error.rule_id
    assert "'SN-1'" in error.what
    assert "'SN-2'" in error.what


def test_same_serial_twice_is_one_serial() -> None:
    """A label that repeats the serial in another kind of code agrees with itself."""
    both = [label(TEXT), label(TEXT, "QRCode")]
    high = max(image.shape[0] for image in both)
    both = [np.pad(one, ((0, high - one.shape[0]), (0, 0)), constant_values=255) for one in both]
    assert TEXT == read_serial(np.hstack(both), SerialSection()).text


def test_region_picks_one_of_two_codes() -> None:
    """Only the code inside roi_px counts, and its corners are those in the whole frame."""
    first, second = label("SN-1"), label("SN-2")
    width = first.shape[1]
    frame = np.hstack([first, second])
    section = SerialSection(roi_px=(width, 0, frame.shape[1], frame.shape[0]))
    read = read_serial(frame, section)
    assert "SN-2" == read.text
    assert all(x > width for x, _ in read.corners)


def test_pattern_picks_one_of_two_codes() -> None:
    """A maker's code beside the serial is passed over when the pattern tells them apart."""
    frame = np.vstack(
        [np.pad(label(text), ((0, 0), (0, 60)), constant_values=255)[:, :100] for text in ("MAKER-4711", "SN-0000001")]
    )
    assert "SN-0000001" == read_serial(frame, SerialSection(pattern=r"SN-\d{7}")).text


def test_region_outside_the_frame_is_unreadable() -> None:
    """A region that does not lie in the frame is named with the frame's size."""
    assert "reaches beyond the frame" in refused(label(TEXT), roi_px=(0, 0, 5000, 10)).what


def test_code_of_another_kind_is_not_read() -> None:
    """Only the kinds that the recipe names are looked for."""
    assert "serial.unreadable" == refused(label(TEXT, "QRCode"), formats=("DataMatrix",)).rule_id


@pytest.mark.parametrize("text", ["SN-12345", "sn-1", "SN-1 ", "XSN-1"])
def test_text_must_match_the_whole_pattern(text: str) -> None:
    """Part of a match is none."""
    error = refused(label(text), pattern=r"SN-\d{1,4}")
    assert "serial.pattern" == error.rule_id
    assert f"'{text}'" in error.what


@pytest.mark.parametrize(
    ("text", "shown"), [("A\nB", r"A\nB"), ("A\x1dB", r"A\x1dB"), ("\x00SN", r"\x00SN"), ("SN\x1b[2J", r"SN\x1b[2J")]
)
@pytest.mark.parametrize("pattern", [".{1,64}", r"[\s\S]*"])
def test_control_characters_are_refused_and_shown_escaped(text: str, shown: str, pattern: str) -> None:
    """A label cannot write into logs, pages or file names what nobody sees; no pattern can allow it."""
    error = refused(label(text), pattern=pattern)
    assert "serial.pattern" == error.rule_id
    assert shown in error.what
    assert error.what.isprintable()


def test_writing_direction_marks_are_refused() -> None:
    """Characters that turn the writing round make one serial look like another."""
    assert r"\u202e" in refused(label("SN\u202e321", "QRCode")).what


@pytest.mark.parametrize(("length", "accepted"), [(LONGEST, True), (LONGEST + 1, False), (300, False)])
def test_length_is_bounded(length: int, accepted: bool) -> None:
    """A code of a thousand characters is no serial, and its text does not flood the record."""
    image = label("x" * length)
    if accepted:
        assert "x" * length == read_serial(image, SerialSection()).text
    else:
        assert len(refused(image, pattern=".*").what) < 200


# ---- controller and frame together


def test_controller_alone_reads_nothing() -> None:
    """By default the frame is not looked at, even where it shows another serial."""
    assert ("", None, None) == resolve_serial(SerialSection(), "S1", label("OTHER"))


def test_frame_alone_gives_the_code() -> None:
    """With source frame the controller's serial does not matter."""
    assert (TEXT, None, None) == resolve_serial(SerialSection(source="frame"), "S1", label(TEXT))


@pytest.mark.parametrize(("given", "expected"), [("S1", ""), ("", TEXT)])
def test_either_prefers_the_controller(given: str, expected: str) -> None:
    """The code is read only where the controller gave no serial."""
    assert (expected, None, None) == resolve_serial(SerialSection(source="either"), given, label(TEXT))


def test_both_equal_is_fine() -> None:
    """Code and controller that agree leave no reason."""
    assert (TEXT, None, None) == resolve_serial(SerialSection(source="both"), TEXT, label(TEXT))


@pytest.mark.parametrize("given", ["SN-2026-000124", "", TEXT.lower(), TEXT + " "])
@pytest.mark.parametrize("unreadable", ["error", "review"])
def test_both_different_is_an_error(given: str, unreadable: Any) -> None:
    """Parts and triggers out of step are never passed, nor only reviewed; the part is filed under its own code."""
    section = SerialSection(source="both", unreadable=unreadable)
    read, reason, verdict = resolve_serial(section, given, label(TEXT))
    assert (TEXT, Verdict.ERROR) == (read, verdict)
    assert reason is not None
    assert "serial.mismatch" == reason.rule_id
    assert TEXT in reason.text


@pytest.mark.parametrize("source", ["frame", "both"])
@pytest.mark.parametrize(("unreadable", "expected"), [("error", Verdict.ERROR), ("review", Verdict.REVIEW)])
@pytest.mark.parametrize("frame", [np.full((200, 200), 128, np.uint8), None], ids=["plain", "no frame"])
def test_unreadable_serial_is_never_ok(source: Any, unreadable: Any, expected: Verdict, frame: Image | None) -> None:
    """A part without a serial becomes what the recipe says, with the reason."""
    read, reason, verdict = resolve_serial(SerialSection(source=source, unreadable=unreadable), "S1", frame)
    assert ("", expected) == (read, verdict)
    assert reason is not None
    assert "serial.unreadable" == reason.rule_id


def test_either_without_any_serial_is_unreadable() -> None:
    """Where neither says a serial there is a reason."""
    _, reason, verdict = resolve_serial(SerialSection(source="either"), "", np.zeros((99, 99), np.uint8))
    assert Verdict.ERROR == verdict
    assert reason is not None


# ---- configuration and installation


@pytest.mark.parametrize(
    "values",
    [
        {"source": "nobody"},
        {"formats": []},
        {"formats": ["Aztec"]},
        {"pattern": "("},
        {"pattern": ""},
        {"roi_px": [10, 10, 10, 20]},
        {"roi_px": [-1, 0, 5, 5]},
        {"unreadable": "ok"},
        {"repeated": "ok"},
        {"camera": "a b"},
        {"sorce": "frame"},
    ],
    ids=str,
)
def test_wrong_section_is_refused(values: dict[str, Any]) -> None:
    """Unknown keys, kinds and values do not become a recipe."""
    with pytest.raises(ValidationError):
        SerialSection.model_validate(values)


def test_every_setting_is_described() -> None:
    """The reference page is made from these texts."""
    assert all(field.description for field in SerialSection.model_fields.values())


@pytest.fixture
def without_zxing() -> Iterator[None]:
    """A computer on which the reader is not installed."""
    kept = sys.modules.pop("zxingcpp")
    sys.modules["zxingcpp"] = None  # type: ignore[assignment]
    yield
    sys.modules["zxingcpp"] = kept


@pytest.mark.usefixtures("without_zxing")
def test_missing_reader_names_the_extra() -> None:
    """A recipe that reads codes says before the first part what to install; one that does not needs nothing."""
    require_reader(SerialSection())
    with pytest.raises(DriverMissing) as caught:
        require_reader(SerialSection(source="frame"))
    assert "lineside[codes]" in caught.value.fix
