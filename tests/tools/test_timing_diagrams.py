"""The timing diagrams: drawn for every line interface, small, and seen by who reads the pages."""

from pathlib import Path

import cv2
import pytest

from tools.timing_diagrams import DEPLOY, DIAGRAMS, WIDTH_PX, Held, Level, Said, draw

MOST_BYTES = 60_000


@pytest.mark.parametrize("name", sorted(DIAGRAMS))
def test_a_diagram_is_drawn(name: str, tmp_path: Path) -> None:
    """The picture has the promised width and is small enough for a page."""
    pytest.importorskip(
        "matplotlib", reason='matplotlib draws the diagrams; install it with: pip install "lineside[dev]"'
    )
    pytest.importorskip("PIL", reason="pillow makes them small; it comes with matplotlib")
    draw(DIAGRAMS[name], tmp_path / name)
    drawn, kept = (cv2.imread(str(folder / name)) for folder in (tmp_path, DEPLOY))
    assert drawn is not None
    assert kept is not None, "draw it with: python -m tools.timing_diagrams"
    assert WIDTH_PX == drawn.shape[1] == kept.shape[1]
    assert (DEPLOY / name).stat().st_size < MOST_BYTES


@pytest.mark.parametrize("name", sorted(DIAGRAMS))
def test_times_run_to_the_right(name: str) -> None:
    """No signal changes before it did, and none outside the picture."""
    for panel in DIAGRAMS[name]:
        for row in panel.rows:
            match row:
                case Level(changes=times):
                    pass
                case Said(at=said):
                    times = tuple(time for time, _ in said)
                case Held(spans=spans):
                    times = tuple(time for begin, end, _ in spans for time in (begin, end))
            assert list(times) == sorted(times), row.name
            assert all(0 <= time <= panel.end for time in times), row.name


@pytest.mark.parametrize("page", ["register_map.md", "tcp_text.md"])
def test_the_page_shows_its_diagram(page: str) -> None:
    """The PLC programmer need not look for it."""
    shown = (DEPLOY / page).read_text(encoding="utf-8")
    assert any(f"({name})" in shown for name in DIAGRAMS)
