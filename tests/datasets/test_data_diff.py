"""What differs between two dataset versions: found, told in text, and shown on a page."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.diff import BoxChange, box_iou, diff, match_boxes
from datasets.diff_page import page, write_page
from datasets.manifest import Dataset, load_dataset, write_dataset
from datasets.relabel.labels import open_labels
from datasets.sample import LabelledBox, Sample
from inspection.cli import main
from inspection.errors import UsageError

CHROMIUM = Path("/usr/bin/chromium")
EVIL = '<script>alert("1")</script>'


def box(kind: str, x: float, y: float, side: float = 10) -> LabelledBox:
    return LabelledBox(kind, (x, y, x + side, y + side))


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        ([], [], []),
        ([box("dent", 0, 0)], [box("dent", 0.0, 0.0)], []),
        ([], [box("dent", 0, 0)], ["added"]),
        ([box("dent", 0, 0)], [], ["removed"]),
        ([box("dent", 0, 0)], [box("dent", 3, 2)], ["moved"]),
        ([box("dent", 0, 0)], [box("dent", 9, 9)], ["removed", "added"]),
        ([box("dent", 0, 0)], [box("scratch", 0, 0)], ["reclassed"]),
        ([box("dent", 0, 0)], [box("scratch", 6, 6)], ["removed", "added"]),
        ([box("dent", 0, 0), box("dent", 0, 0)], [box("dent", 0, 0)], ["removed"]),
        ([box("dent", 0, 0), box("dent", 8, 0)], [box("dent", 1, 0), box("dent", 8, 0)], ["moved"]),
        ([box("dent", 0, 0), box("scratch", 50, 50)], [box("scratch", 0, 0), box("dent", 50, 50)], ["reclassed"] * 2),
    ],
)
def test_boxes_are_matched_by_overlap(before: list[LabelledBox], after: list[LabelledBox], kinds: list[str]) -> None:
    """What overlaps is one defect that was moved or reclassed; what does not was removed or added."""
    changes, _ = match_boxes(before, after)
    assert [change.kind for change in changes] == kinds


LABELS = st.lists(
    st.builds(box, st.sampled_from(["dent", "scratch"]), *[st.integers(0, 30)] * 2, st.integers(1, 20)), max_size=8
)


@given(LABELS, LABELS)
def test_every_box_is_told_once(before: list[LabelledBox], after: list[LabelledBox]) -> None:
    """Changed and unchanged boxes together are all boxes of both sides."""
    changes, unchanged = match_boxes(before, after)
    key = repr
    assert sorted([c.before for c in changes if c.before] + list(unchanged), key=key) == sorted(
        map(settled, before), key=key
    )
    assert sorted([c.after for c in changes if c.after] + list(unchanged), key=key) == sorted(
        map(settled, after), key=key
    )


def settled(label: LabelledBox) -> LabelledBox:
    x1, y1, x2, y2 = map(float, label.box_px)
    return replace(label, box_px=(x1, y1, x2, y2))


def test_iou_of_boxes() -> None:
    """A box overlaps itself wholly, half a box by a third, and a neighbour not at all."""
    assert box_iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert box_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0


@pytest.fixture
def versions(
    tmp_path: Path, make_sample: Callable[..., Sample], gather: Callable[..., Dataset]
) -> tuple[Path, Path, Dataset, Dataset]:
    """Two datasets: one sample is relabelled, one renamed, one regrouped, one gone, one new, one as it was."""
    a, b, c, d, e, f = (make_sample(name) for name in "abcdef")
    first = gather(a, b, c, d, f)
    moved, dented = box("scratch", 3, 4, 30), box("dent", 50, 30)
    after = gather(
        replace(a, labels=(moved, dented), image_class="dent"), replace(b, name="b2"), replace(c, group="lot 7"), e, f
    )  # fmt: skip
    folders = (tmp_path / "A", tmp_path / "B")
    return *folders, write_dataset(folders[0], first), write_dataset(folders[1], replace(after, name="later"))


def test_samples_that_came_went_or_changed(versions: tuple[Path, Path, Dataset, Dataset]) -> None:
    """Each sample that differs is told with what does; a renamed one is known by its picture; counts add up."""
    _, _, before, after = versions
    found = diff(before, after)
    assert [s.name for s in found.added] == ["e"]
    assert [s.name for s in found.removed] == ["d"]
    told = {s.name: s for s in found.changed}
    assert set(told) == {"a", "b2", "c"}
    assert told["b2"].facts == ("name: b to b2",)
    assert told["c"].facts == ("group: c to lot 7",)
    assert told["a"].facts == ("class of the whole image: none to dent",)
    assert found.boxes == {"added": 1, "removed": 1, "moved": 1, "reclassed": 0}
    assert [(row.name, row.before, row.after) for row in found.classes] == [("scratch", 5, 5), ("dent", 5, 6)]
    assert not diff(before, before).changed
    assert diff(before, before).same


def test_the_verb_tells_the_difference(
    versions: tuple[Path, Path, Dataset, Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`lineside data diff A B -o PAGE.html` prints the counts and each sample, and writes the page."""
    before, after, _, _ = versions
    assert main(["data", "diff", str(before), str(after), "-o", str(tmp_path / "page.html")]) == 0
    out = capsys.readouterr().out
    assert "samples: 3 changed, 1 added, 1 removed" in out
    assert "class dent: 5 to 6" in out
    assert "changed c: group: c to lot 7" in out
    assert (tmp_path / "page.html").stat().st_size > 5000


def test_the_verb_compares_with_an_earlier_version(
    versions: tuple[Path, Path, Dataset, Dataset], capsys: pytest.CaptureFixture[str]
) -> None:
    """`lineside data diff DATASET --from VERSION` goes back through the saves of the dataset."""
    folder, _, first, _ = versions
    with open_labels(folder) as labels:
        for side in (20, 21):
            labels.save(
                "a", [box("dent", 1, 1, side)], image_class="", who="anna", why="", base_version=labels.revision("a")
            )
    assert main(["data", "diff", str(folder), "--from", first.version[:9]]) == 0
    out = capsys.readouterr().out
    assert "samples: 1 changed, 0 added, 0 removed" in out
    assert "changed a: 1 box(es)" in out
    assert main(["data", "diff", str(folder), "--from", "0" * 12]) == 2
    assert "newest versions: " + load_dataset(folder).version[:12] in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["A"], ["A", "B", "--from", "123456"], ["nowhere", "B"], ["A", "--from", "12"]])
def test_wrong_arguments_are_refused(
    versions: tuple[Path, Path, Dataset, Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    """One dataset without a version, both, a folder that is none, or too few digits: a message, exit code 2."""
    monkeypatch.chdir(tmp_path)
    assert main(["data", "diff", *arguments]) == 2


def test_a_missing_picture_is_said_on_the_page(versions: tuple[Path, Path, Dataset, Dataset]) -> None:
    """A sample whose image is gone stays on the page, with the reason in place of the picture."""
    _, _, before, after = versions
    after.samples[0].image.unlink()
    text = page(diff(before, after))
    assert "no picture: there is no file" in text


def test_a_page_that_cannot_be_written_is_an_error(
    versions: tuple[Path, Path, Dataset, Dataset], tmp_path: Path
) -> None:
    """A folder that is not there is named."""
    _, _, before, after = versions
    with pytest.raises(UsageError, match="cannot write"):
        write_page(tmp_path / "no" / "page.html", diff(before, after))


def test_the_page_in_a_browser(versions: tuple[Path, Path, Dataset, Dataset], tmp_path: Path) -> None:
    """In Chromium the page asks for nothing outside, runs no text as a script, fits a phone, and draws every change."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason='needs Playwright: pip install "playwright>=1.40" and the system\'s chromium'
    )
    if not CHROMIUM.exists():
        pytest.skip("needs Chromium: apt-get install chromium")
    _, _, before, after = versions
    named = replace(
        after,
        classes=(*after.classes, EVIL),
        samples=(replace(after.samples[0], labels=(box(EVIL, 5, 5),)), *after.samples[1:]),
    )
    found = diff(before, replace(named, name=EVIL))
    write_page(tmp_path / "page.html", found)
    asked, faults = list[str](), list[str]()
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        try:
            opened = browser.new_page(viewport={"width": 390, "height": 844})
            opened.on("request", lambda request: asked.append(request.url))
            opened.on("console", lambda message: faults.append(message.text))
            opened.on("dialog", lambda dialog: faults.append(dialog.message))
            opened.goto((tmp_path / "page.html").as_uri())
            assert opened.title() == f"What changed in {EVIL}"
            assert opened.evaluate("document.documentElement.scrollWidth") <= 390
            drawn = {style: opened.locator(f".card rect.{style}").count() for style in ("before", "after")}
            changed = [change for sample in found.changed for change in sample.changes]
            assert drawn == {"before": 2 * seen(changed, "before") + 2, "after": 2 * seen(changed, "after") + 2}
        finally:
            browser.close()
    assert faults == []
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}


def seen(changes: list[BoxChange], side: str) -> int:
    return sum(getattr(change, side) is not None for change in changes)
