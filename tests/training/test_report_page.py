"""The report as people get it: complete, self-contained, honest about what was not measured."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jinja2", reason='needs jinja2: pip install "lineside[train]"')
pytest.importorskip("matplotlib", reason='needs matplotlib: pip install "lineside[train]"')
pytest.importorskip("scipy", reason='needs scipy: pip install "lineside[train]"')
pytest.importorskip("tqdm", reason='needs tqdm: pip install "lineside[train]"')

from datasets.look_alikes import Leak
from datasets.sample import LabelledBox, Sample
from inspection.cli import main
from inspection.images import write_png
from inspection.inspect_frame import Inspection
from inspection.judge import Rule, judge
from inspection.model import Calibration, LoadedModel, ModelCard, TrainedOn
from inspection.predict import Prediction
from inspection.types import Detection, Region, Verdict, error_judgement
from training.evaluate import Case, Evaluation, as_json, as_text
from training.report import gallery
from training.report.page import render, write_report
from training.report.words import statements

CARD = ModelCard(
    name="housing", task="classify", classes=("dent",), golden_guided=False, threshold=0.5, threshold_from="a test",
    trained_on=TrainedOn(source="real labelled parts", images_sha256=("ab" * 6,)), trainer="lineside part net",
    trainer_licence="Apache-2.0", command="", seed=1, trained_minutes=1,
)  # fmt: skip
RULES = (Rule("dent", 0.5, 0.3),)
BOX = (8.0, 8.0, 24.0, 24.0)
ODD_NAMES = ("<script>alert(1)</script>", 'a & "b"', "Gehäuse ☃", "'single' {{ 7 * 7 }}")
VOID = {"meta", "image", "rect", "img", "br", "link"}


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, the text, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def case(
    folder: Path, name: str, score: float, *, bad: bool, error: bool = False, boxes: bool = False, heat: bool = True
) -> Case:
    """A part of 48 x 40 pixels whose one finding has this score."""
    picture = folder / f"{abs(hash(name))}.png"
    rng = np.random.default_rng(len(name))
    write_png(picture, rng.integers(0, 255, (40, 48), np.uint8))
    labels = (LabelledBox("dent", BOX),) if bad and boxes else ()
    sample = Sample(picture, None, labels, "g", "", name, "dent" if bad and not boxes else "")
    found = () if error else (Detection("dent", score, Region(BOX)),)
    judgement = error_judgement("quality.blur", "the image is blurred") if error else judge(found, RULES)
    shown = np.full((4, 4), score, np.float32) if heat and not error else None
    return Case(sample, Prediction(picture.name, Inspection(judgement, found, (("infer", 2.0),), shown), 3.0))


def evaluation(*cases: Case, **changes: object) -> Evaluation:
    return Evaluation(CARD.model_copy(update=changes), cases, RULES, 0)


def figures_of(result: Evaluation) -> dict:
    return as_json(result, LoadedModel(Path("model.onnx"), result.card, "f" * 64, session=None), "parts 0123456789ab")  # type: ignore[arg-type]


def text_of(result: Evaluation, **given: object) -> str:
    return render(result, figures_of(result), **given)  # type: ignore[arg-type]


def page_of(result: Evaluation, **given: object) -> Page:
    return Page(text_of(result, **given))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Every verdict on good and on defective parts."""
    folder, made = tmp_path_factory.mktemp("parts"), []
    for number in range(12):
        made.append(case(folder, f"caught-{number}", 0.6 + 0.03 * number, bad=True))
        made.append(case(folder, f"passed-{number}", 0.02 * number, bad=False))
    for number in range(3):
        made.append(case(folder, f"escape-{number}", 0.1 + 0.01 * number, bad=True))
        made.append(case(folder, f"overkill-{number}", 0.7 + 0.01 * number, bad=False))
        made.append(case(folder, f"review-{number}", 0.4, bad=bool(number % 2)))
        made.append(case(folder, f"refused-{number}", 0.0, bad=bool(number % 2), error=True))
    return evaluation(*made)


@pytest.fixture(scope="module")
def text(mixed: Evaluation) -> str:
    """The page of every verdict."""
    return text_of(mixed)


def test_page_needs_nothing_from_outside(text: str) -> None:
    """No script, no style sheet, no address: every picture is in the page, every link stays in it."""
    page = Page(text)
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    for tag, given in page.tags:
        assert not any(name.startswith("on") for name in given)
        for name in ("src", "href"):
            assert name not in given or str(given[name]).startswith("#" if tag == "a" else "data:image/")


def test_links_lead_somewhere_and_pictures_have_words(text: str) -> None:
    """Every entry of the contents is a section; who cannot see a picture hears what it is."""
    page = Page(text)
    ids = [given["id"] for _, given in page.tags if "id" in given]
    assert len(ids) == len(set(ids))
    assert {str(given["href"])[1:] for tag, given in page.tags if tag == "a"} <= set(ids)
    assert all(given.get("alt") for tag, given in page.tags if tag == "img")
    assert all(given.get("aria-label") or given.get("aria-hidden") for tag, given in page.tags if tag == "svg")


def test_every_mistake_appears_by_name(text: str) -> None:
    """Escapes, overkill, review and errors are all there, in the section of their kind."""
    parts = dict(re.findall(r'<section id="(\w+)">(.*?)</section>', text, re.DOTALL))
    for kind, key in (("escape", "escapes"), ("overkill", "overkill"), ("review", "review"), ("refused", "errors")):
        assert {f"{kind}-{number}" for number in range(3)} == set(re.findall(rf'"name">({kind}-\d)<', parts[key]))
    assert "caught-0" in parts["closest"]
    assert "passed-11" in parts["closest"]
    assert "caught-11" not in parts["closest"]
    assert "Overkill also counts good parts that could not be judged, 2 here" in parts["overkill"]


def test_mistakes_beyond_the_limit_are_named_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page has only so many pictures; what has none is still told by name."""
    monkeypatch.setattr(gallery, "MOST_MISTAKES", 2)
    result = evaluation(
        *(case(tmp_path, f"e{n}", 0.1, bad=True) for n in range(5)), case(tmp_path, "g", 0.1, bad=False)
    )
    page = page_of(result)
    assert "3 more without a picture here: e2, e3, e4" in page.text
    assert "Escapes (5)" in page.text


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    """Names from files, classes and notes may hold anything; the reader sees it as it is."""
    cases = [case(tmp_path, name, 0.1, bad=True) for name in ODD_NAMES]
    result = evaluation(*cases, name="<i>m & n</i>", threshold_from="x < y")
    page = page_of(result, notes=[("1 < 2 & 3", "<b>")])
    for said in (*ODD_NAMES, "<i>m & n</i>", "1 < 2 & 3", "<b>"):
        assert said in " ".join(page.words)
    assert not {"script", "i", "b"} & {tag for tag, _ in page.tags}


def test_figures_are_those_of_the_json(mixed: Evaluation, text: str) -> None:
    """Page and JSON cannot tell different counts."""
    figures, page = figures_of(mixed), Page(text)
    assert (figures["escape"]["count"], figures["escape"]["of"]) == (3, 17)
    for said in ("; 1 of the 17 could not be judged", "; 2 of the 19 could not be judged"):
        assert said in page.text
        assert said in as_text(figures)
    for rate in ("escape", "overkill"):
        low, high = (f"{100 * value:.2f}\N{NO-BREAK SPACE}%" for value in figures[rate]["interval_95"])
        assert f"{figures[rate]['count']} of {figures[rate]['of']}" in page.text
        assert f"interval {low} to {high}".replace("\N{NO-BREAK SPACE}", " ") in page.text
    assert f"{figures['auroc']:.4f}" in page.text
    assert f"{figures['errors']} of {figures['images']}" in page.text
    assert figures["model_sha256"] in page.text
    assert "3.00 3.00" in page.text  # median and p99


def test_without_good_parts_overkill_is_no_number(tmp_path: Path) -> None:
    """Nothing can be said about good parts where there are none."""
    page = page_of(evaluation(*(case(tmp_path, f"d{n}", 0.2 * n, bad=True) for n in range(5))))
    assert re.search(r"Overkill not measurable there is no good part here", page.text)
    assert re.search(r"AUROC not measurable there is no good part here", page.text)
    assert "Not drawn: there is no good part here." in page.text
    assert "Not measurable: there is no good part here." in page.text
    assert "nan" not in page.text.lower()


def test_without_defective_parts_escapes_are_no_number(tmp_path: Path) -> None:
    """No escape among no defective parts is no zero."""
    page = page_of(evaluation(*(case(tmp_path, f"g{n}", 0.2 * n, bad=False) for n in range(5))))
    assert re.search(r"Escapes not measurable there is no defective part here", page.text)
    assert "Not measurable: there is no defective part here." in page.text
    assert "0 of 0" not in page.text
    assert "nan" not in page.text.lower()


def test_empty_galleries_say_so(tmp_path: Path) -> None:
    """A section without parts says why it is empty."""
    result = evaluation(case(tmp_path, "d", 0.9, bad=True), case(tmp_path, "g", 0.1, bad=False))
    page = page_of(result)
    for said in ("No defective part passed.", "No good part was rejected by a finding.", "No part was sent to review.",
                 "Every part could be judged.", "There are no more parts than those above."):  # fmt: skip
        assert said in page.text


def test_evaluation_in_which_nothing_could_be_judged(tmp_path: Path) -> None:
    """All errors: a page without scores, that says so."""
    page = page_of(evaluation(*(case(tmp_path, f"x{n}", 0, bad=bool(n), error=True) for n in range(2))))
    assert "Not drawn: no part could be judged." in page.text
    assert "No part was judged rightly." in page.text


def test_unreadable_picture_leaves_its_place(tmp_path: Path) -> None:
    """A part whose file is gone is still listed."""
    one = case(tmp_path, "gone", 0.1, bad=True)
    one.sample.image.unlink()
    assert "no picture: the file could not be read" in page_of(evaluation(one)).text


@pytest.mark.parametrize(
    ("changes", "said", "warned"),
    [
        ({}, "The limits are not calibrated: nothing is promised", True),
        ({"calibration": "kept"}, "At most 2 % pass.", False),
        ({"calibration": "refused"}, "No escape rate is claimed.", True),
    ],
)
def test_promise_or_its_lack_is_told(tmp_path: Path, changes: dict, said: str, warned: bool) -> None:
    """The calibration speaks with its own words; where nothing is promised the page warns."""
    bound = 0.02 if changes.get("calibration") == "kept" else None
    found = Calibration(
        statement=said, dataset="parts", dataset_version="fedcba987654", confidence=0.95, defective=9, escapes=0,
        escape_bound=bound, good=9, overkill=0,
    )  # fmt: skip
    made = evaluation(case(tmp_path, "g", 0.1, bad=False), **({"calibration": found} if changes else {}))
    own = replace(made, rules=(Rule("dent", 0.5, 0.5),))
    text = page_of(own).text
    assert said in text
    assert ("Calibration (warning)" in text) == warned
    if not warned:
        assert "so the promise is not about it" in page_of(made).text  # judged by other limits than the card's


def test_images_of_the_training_are_a_warning(mixed: Evaluation, text: str) -> None:
    """Figures on images that were learnt are too good, and the page says so at its top."""
    assert "None of these 36 images is among the 1 of the training" in Page(text).text
    assert (
        "trained on 7 of these 36 images: the figures are too good" in page_of(replace(mixed, seen_in_training=7)).text
    )


@pytest.mark.parametrize(
    ("leak", "said", "warned"),
    [
        (None, "Nobody looked whether these images look like some of the training.", True),
        (Leak((), (), 36, 0, "none"), "No training image is part of this dataset", True),
        (Leak((), (), 36, 90, "card"), "None of 36 evaluated images is or looks like one of the 90", False),
        (Leak(("a",), ("b", "c"), 36, 90, "split"), "36 evaluated images 1 are and 2 look like one", True),
    ],
)
def test_copies_of_training_images_are_told(mixed: Evaluation, leak: Leak | None, said: str, warned: bool) -> None:
    """What the search found, or that nobody looked; only a search that found none is no warning."""
    (told,) = (row for row in statements(mixed, "parts", leak) if row.title == "Copies of training images")
    assert said in told.text
    assert (told.weight == "warning") == warned


def test_limits_given_by_hand_are_called_so(mixed: Evaluation, text: str) -> None:
    """A threshold that is not the model's own is not told as what the model was trained for."""
    assert "These limits were given for this evaluation" in Page(text).text
    own = replace(mixed, rules=(Rule("dent", 0.5, 0.5),))
    assert "limits of the model itself, chosen on: a test." in page_of(own).text


def test_boxes_of_truth_and_findings_are_drawn_apart(tmp_path: Path) -> None:
    """True boxes, findings that count and findings below the limit each have their own line, at the scale of the picture."""
    page = page_of(evaluation(case(tmp_path, "d", 0.9, bad=True, boxes=True), case(tmp_path, "e", 0.1, bad=True)))
    rects = [given for tag, given in page.tags if tag == "rect" and given.get("x") == str(round(8 * 256 / 48, 1))]
    assert {"halo", "true", "found", "below"} == {given["class"] for given in rects}


def test_detector_gets_figures_of_boxes(tmp_path: Path) -> None:
    """A model that finds boxes is told by mAP and a confusion of boxes too."""
    cases = [case(tmp_path, f"d{n}", 0.9, bad=True, boxes=True, heat=False) for n in range(3)]
    result = evaluation(*cases, case(tmp_path, "g", 0.9, bad=False, heat=False), task="detect")
    figures, page = figures_of(result), page_of(result)
    assert f"mAP@0.5 {figures['map_50']:.4f} 3 boxes in 4 images" in page.text
    assert "nothing there 1 0" in page.text
    assert "dent 3 0" in page.text
    assert "Precision and recall of boxes" in page.text


def test_detector_without_true_boxes_says_so(tmp_path: Path) -> None:
    """No mAP without a box."""
    result = evaluation(case(tmp_path, "g", 0.9, bad=False, heat=False), task="detect")
    page = page_of(result)
    assert "mAP@0.5 not measurable no defect is marked with a box here" in page.text
    assert "nan" not in page.text.lower()


def test_report_of_many_images_stays_small(tmp_path: Path) -> None:
    """Seven hundred parts, all of them mistakes, on pictures that hardly compress: less than 15 MB, written whole."""
    cases = [case(tmp_path, f"p{n % 9}", 0.1 + 0.8 * (n % 2), bad=not n % 2) for n in range(700)]
    named = [replace(one, sample=replace(one.sample, name=f"part-{n:03}")) for n, one in enumerate(cases)]
    result = evaluation(*named)
    write_report(tmp_path / "report.html", result, figures_of(result))
    content = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(content.encode()) < 15e6
    assert {f"part-{n:03}" for n in range(700)} <= set(re.findall(r"part-\d{3}", content))
    assert [] == list(tmp_path.glob("*.partial"))


def test_same_evaluation_gives_the_same_page(mixed: Evaluation, text: str) -> None:
    """Nothing but the date differs between two runs."""
    one, other = (re.sub(r"Made \S+ \S+ UTC", "", page) for page in (text, text_of(mixed)))
    assert one == other


def test_verdicts_are_counted_once(mixed: Evaluation, text: str) -> None:
    """The table of verdicts holds every part."""
    table = re.search(r"Parts by verdict.*?</table>", text, re.DOTALL)
    assert table is not None
    counts = [[int(n) for n in re.findall(r'class="n">(\d+)<', row)] for row in table.group().split("<tr>")[2:]]
    assert [17, 19] == [row[-1] for row in counts]
    assert all(sum(row[:-1]) == row[-1] for row in counts)
    assert sum(c.verdict == Verdict.OK for c in mixed.cases) == counts[0][0] + counts[1][0]


def contrast(one: str, other: str) -> float:
    """Ratio of luminances as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_of_the_page_can_be_read(text: str) -> None:
    """Text has the contrast that WCAG AA asks for, on white, on the tint and on the colours of the verdicts."""
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", text))
    for name in ("ink", "muted", "link"):
        assert contrast(colours[name], "#ffffff") >= 4.5
        assert contrast(colours[name], colours["tint"]) >= 4.5
    for name in ("ok", "ng", "review", "error", "true", "found"):
        assert contrast(colours[name], "#ffffff") >= 4.5


def test_verb_writes_the_page(
    capsys: pytest.CaptureFixture[str], boards: Path, demo_recipe: Path, tmp_path: Path
) -> None:
    """`lineside evaluate --html` leaves the page, names the part that was chosen, and prints what it always does."""
    page = tmp_path / "report.html"
    given = ["evaluate", str(demo_recipe / "model.onnx"), str(boards), "--groups", "a", "--html", str(page)]
    assert main(given) == 0
    assert "escape" in capsys.readouterr().out
    text = Page(page.read_text(encoding="utf-8")).text
    assert "groups a (6 images in all)" in text
    assert "golden template" in text


def test_verb_misses_a_folder_before_it_starts(
    capsys: pytest.CaptureFixture[str], boards: Path, demo_recipe: Path, tmp_path: Path
) -> None:
    """Minutes of judging are not thrown away for a mistyped path."""
    given = ["evaluate", str(demo_recipe / "model.onnx"), str(boards), "--html", str(tmp_path / "no" / "r.html")]
    assert main(given) == 2
    assert "there is no folder" in capsys.readouterr().err
