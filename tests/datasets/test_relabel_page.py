"""The relabelling page in a real Chromium, served by a real `lineside relabel` that is killed on the way."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from types import MappingProxyType
from typing import IO

import numpy as np
import pytest

from datasets.manifest import Origin, load_dataset, make_dataset, write_dataset
from datasets.relabel.history import read_history
from datasets.relabel.vouched import vouched_names
from datasets.sample import LabelledBox, Sample
from datasets.synth.artwork import draw_board
from inspection.images import write_png

playwright = pytest.importorskip("playwright.sync_api", reason='needs playwright: pip install -e ".[dev]"')
Page, Context, Browser = playwright.Page, playwright.BrowserContext, playwright.Browser
CHROMIUM = next((p for p in map(Path, ("/usr/bin/chromium", "/usr/bin/chromium-browser")) if p.exists()), None)
WAIT_MS = 120_000
WIDTH, HEIGHT = 96, 80
HOSTILE = """<img src=x onerror=alert(1)>"'&{{7*7}}../../etc"""
CLASSES = ("scratch", "dent", "<script>alert(2)</script>")
SHARED, ESCAPE = 40, 39
STEPS = (-20, -13, -2, -1, 0, 1, 3, 11, 20)  # px: tens with Ctrl, the rest one by one
LARGER = (0, 1, 2, 5, 11, 14)
ACROSS, ALONG = ("ArrowLeft", "ArrowRight"), ("ArrowUp", "ArrowDown")
OUTLINE = ((10.0, 10.0), (40.5, 12.0), (20.0, 40.25))


class Served:
    """`lineside relabel` as a process of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.held = socket.socket()  # its port, which nobody else is given while the server is away
        self.held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.held.bind(("127.0.0.1", 0))
        self.port = int(self.held.getsockname()[1])
        self.start()

    def start(self) -> None:
        """Start it, on its port; ``address`` lets one browser in."""
        command = [sys.executable, "-m", "inspection", "relabel", str(self.folder), "--port", str(self.port)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [*command, "--who", "ann", *self.options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self.lines: Queue[str] = Queue()
        assert self.process.stdout is not None
        self.reader = Thread(target=self._read, args=(self.process.stdout, self.lines), daemon=True)
        self.reader.start()
        self.address = self.next_address()

    @staticmethod
    def _read(lines: IO[bytes], into: "Queue[str]") -> None:
        with lines:
            for line in lines:
                into.put(line.decode())

    def next_address(self) -> str:
        """The address printed next."""
        try:
            found = re.search(r"http://\S+", self.lines.get(timeout=120))
        except Empty:
            pytest.fail(f"no address was printed; exit code {self.process.poll()}")
        assert found is not None
        return found[0]

    @property
    def top(self) -> str:
        """The page's address without a token."""
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """As a power cut would, for this process."""
        self.process.kill()
        self._gone()

    def stop(self) -> None:
        """End it; a second call does nothing."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self._gone()
        self.held.close()

    def _gone(self) -> None:
        self.process.wait(timeout=60)
        self.reader.join(timeout=60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs the system's Chromium: apt-get install chromium")
    with playwright.sync_playwright() as program:
        opened = program.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


Opened = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    """Opens the page in a browser of its own; nothing may be asked of another origin, and no script may fail."""
    contexts: list[Context] = []
    wrong: list[str] = []

    def open_page(where: Served | Shared, *, width: int = 1280, height: int = 800, number: int | None = None) -> Page:
        served = where.served if isinstance(where, Shared) else where
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        own = (f"http://127.0.0.1:{served.port}/", "data:", "blob:")
        context.on("request", lambda request: request.url.startswith(own) or wrong.append(request.url))
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"script failed: {error}"))
        page.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
        page.on("console", lambda said: "Security Policy" in said.text and wrong.append(said.text))
        page.goto(where.address(number) if isinstance(where, Shared) else where.address)
        page.wait_for_selector("#name:not(:empty)")
        page.evaluate("sessionStorage.setItem('why', 'missed dents')")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serves a new dataset of small pictures."""
    started: list[Served] = []

    def start(count: int) -> Served:
        started.append(Served(small_dataset(tmp_path, count), "--order", "name"))
        return started[-1]

    yield start
    for served in started:
        served.stop()


@dataclass
class Shared:
    """A server for many tests, each of which works on a sample of its own."""

    served: Served
    number: int

    @property
    def name(self) -> str:
        """The test's own sample."""
        return f"part{self.number:03}"

    def address(self, number: int | None = None) -> str:
        """An address that lets one more browser in, at the test's own sample or another one."""
        found, self.served.address = self.served.address, ""
        return f"{found or self.served.next_address()}#{self.number if number is None else number}"


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    names = tuple(f"part{number:03}" if number != 1 else HOSTILE for number in range(SHARED))
    labels = (LabelledBox("dent", (10.0, 10.0, 40.5, 40.25), (OUTLINE,)),)
    folder = small_dataset(
        tmp_path_factory.mktemp("relabel"), len(names), names=names, labelled={0: labels}, escape=True
    )
    served = Served(folder, "--order", "name")
    yield Shared(served, 1)
    served.stop()


@pytest.fixture
def shared(one_server: Shared) -> Shared:
    one_server.number += 1
    return one_server


def small_dataset(
    folder: Path,
    count: int,
    *,
    names: tuple[str, ...] = (),
    labelled: Mapping[int, tuple[LabelledBox, ...]] = MappingProxyType({}),
    escape: bool = False,
) -> Path:
    (folder / "source").mkdir()
    samples = []
    for number in range(count):
        cells = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        image = np.ascontiguousarray(np.kron(cells, np.ones((HEIGHT // 8, WIDTH // 8), np.uint8)))
        files = [folder / "source" / f"{number:03}{end}.png" for end in ("", ".golden")]
        for file in files:
            write_png(file, image)
        name = names[number] if number < len(names) else f"part{number:03}"
        samples.append(Sample(files[0], files[1], labelled.get(number, ()), f"g{number}", "", name))
    dataset = make_dataset("small parts", samples, classes=CLASSES, origin=Origin("test", "made here"))
    if escape:
        dataset = replace(dataset, escapes=frozenset({samples[-1].name}))
    write_dataset(folder / "parts", dataset)
    return folder / "parts"


def all_saved(page: Page) -> None:
    page.wait_for_selector('#saving[data-waiting="0"]')


def name_is(page: Page, name: str) -> None:
    page.wait_for_function(
        "name => document.getElementById('name').textContent === name && !document.querySelector('[data-opening]')",
        arg=name,
    )


def fetched(page: Page, *numbers: int) -> None:
    """Wait until these images are here, be it before their turn."""
    page.wait_for_function(
        """numbers => {
            const here = performance.getEntriesByType("resource").filter(one => one.responseStatus === 200)
                .map(one => `${new URL(one.name).pathname}/`);
            return numbers.every(number => ["sample", "image", "golden"]
                .every(kind => here.some(path => path.startsWith(`/${kind}/${number}/`))));
        }""",
        arg=list(numbers),
    )


def stored(served: Served, name: str) -> list[tuple[str, tuple[float, ...]]]:
    """What ``dataset.json`` says of a sample."""
    found = {sample.name: sample for sample in load_dataset(served.folder).samples}
    return [(label.defect_class, label.box_px) for label in found[name].labels]


def press(page: Page, key: str, times: int = 1) -> None:
    for _ in range(times):
        page.keyboard.press(key)


def steps(page: Page, keys: tuple[str, str], distance: int, modifier: str = "") -> None:
    """Move or size by arrows, tens first."""
    key = modifier + keys[distance > 0]
    press(page, f"Control+{key}", abs(distance) // 10)
    press(page, key, abs(distance) % 10)


def draw_by_keys(page: Page, by: tuple[int, int], larger: tuple[int, int]) -> tuple[float, ...]:
    """N makes a box, arrows move and size it by so many pixels; gives where it must be then."""
    press(page, "n")
    x1, y1, x2, y2 = (float(page.input_value(f"#{side}")) for side in ("x1", "y1", "x2", "y2"))
    for keys, moved, sized in zip((ACROSS, ALONG), by, larger, strict=True):
        steps(page, keys, moved)
        steps(page, keys, sized, "Shift+")
    return (x1 + by[0], y1 + by[1], x2 + by[0] + larger[0], y2 + by[1] + larger[1])


def on_screen(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a corner of pixels of the image lies on the screen."""
    left, top, zoom = page.evaluate(
        "() => { const p = document.querySelector('#stage .picture'), r = p.getBoundingClientRect();"
        " return [r.left, r.top, r.width / p.width]; }"
    )
    return left + x * zoom, top + y * zoom


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*on_screen(page, *start))
    page.mouse.down()
    page.mouse.move(*on_screen(page, *end), steps=3)
    page.mouse.up()


def test_hundred_images_survive_three_killed_servers(serve: Callable[..., Served], opened: Opened) -> None:
    """A hundred images drawn by keys and mouse are all stored to the pixel, though the server is killed three times."""
    served = serve(100)
    page = opened(served)
    page.evaluate("performance.setResourceTimingBufferSize(10000)")
    rng = np.random.default_rng(5)
    expected = {}
    for number in range(100):
        name = f"part{number:03}"
        name_is(page, name)
        press(page, "1" if number % 4 < 2 else "2")
        if number % 2:
            by, larger = rng.choice(STEPS, 2).tolist(), rng.choice(LARGER, 2).tolist()
            box = draw_by_keys(page, by=tuple(by), larger=tuple(larger))
        else:
            x1, y1 = rng.integers(0, WIDTH - 1), rng.integers(0, HEIGHT - 1)
            box = (float(x1), float(y1), float(rng.integers(x1 + 1, WIDTH)), float(rng.integers(y1 + 1, HEIGHT)))
            drag(page, box[:2], box[2:])
        expected[name] = [(CLASSES[0 if number % 4 < 2 else 1], box)]
        page.keyboard.press("Enter")
        if number in (20, 50, 80):
            fetched(page, *range(number + 1, number + 4))
            served.kill()
        if number in (23, 53, 83):  # three more images without a server
            assert int(page.get_attribute("#saving", "data-waiting") or 0) > 0
            served.start()
    all_saved(page)
    in_file = {sample.name: sample.labels for sample in load_dataset(served.folder).samples}
    assert expected == {name: [(one.defect_class, one.box_px) for one in rows] for name, rows in in_file.items()}
    changes = list(read_history(served.folder))
    assert sorted(expected) == sorted(change.sample for change in changes)
    assert {("ann", "missed dents")} == {(change.who, change.why) for change in changes}


def test_save_waits_through_a_reload(serve: Callable[..., Served], opened: Opened) -> None:
    """What was saved and begun while the server was away is there after the page was closed and opened again."""
    served = serve(3)
    page = opened(served)
    name_is(page, "part000")
    fetched(page, 1)
    served.kill()
    drag(page, (10, 10), (30, 25))
    press(page, "Enter")
    name_is(page, "part001")
    drag(page, (5, 5), (9, 9))
    page.wait_for_function("() => document.getElementById('saving').textContent.includes('does not answer')")
    context = page.context
    page.close()
    served.start()
    page = context.new_page()
    page.goto(f"{served.top}/#1")
    name_is(page, "part001")
    all_saved(page)
    assert [("scratch", (10.0, 10.0, 30.0, 25.0))] == stored(served, "part000")
    assert "scratch 5,5 – 9,9 (4×4)" in page.inner_text("#boxes")
    assert "Not saved yet" in page.inner_text("#saving")
    assert stored(served, "part001") == []


@pytest.mark.parametrize(
    ("button", "expected"),
    [
        ("#keepMine", [("scratch", (50.0, 50.0, 60.0, 60.0))]),
        ("#takeTheirs", [("scratch", (1.0, 1.0, 20.0, 20.0))]),
        ("#mergeBoth", [("scratch", (1.0, 1.0, 20.0, 20.0)), ("scratch", (50.0, 50.0, 60.0, 60.0))]),
    ],
)
def test_two_editors_on_one_image(
    shared: Shared, opened: Opened, button: str, expected: list[tuple[str, tuple[float, ...]]]
) -> None:
    """Who saves second sees both versions and chooses; neither overwrites the other unseen."""
    first = opened(shared)
    second = opened(shared)
    drag(first, (1, 1), (20, 20))
    drag(second, (50, 50), (60, 60))
    press(first, "s")
    all_saved(first)
    press(second, "s")
    second.wait_for_selector("#conflict[open]")
    assert [("scratch", (1.0, 1.0, 20.0, 20.0))] == stored(shared.served, shared.name)
    assert "1,1" in (second.get_attribute("#theirs svg", "aria-label") or "")
    second.click(button)
    if button == "#mergeBoth":
        second.wait_for_function("() => document.getElementById('boxCount').textContent === '2'")
        press(second, "s")
    all_saved(second)
    second.wait_for_selector("#conflict:not([open])", state="attached")
    assert sorted(expected) == sorted(stored(shared.served, shared.name))


def test_two_tabs_of_one_browser(shared: Shared, opened: Opened) -> None:
    """A tab in which nothing was begun follows what the other saves; one in which a box was drawn is asked."""
    first = opened(shared)
    second = first.context.new_page()
    second.goto(f"{shared.served.top}/#{shared.number}")
    name_is(second, shared.name)
    second.evaluate("sessionStorage.setItem('why', 'missed dents')")
    drag(first, (1, 1), (20, 20))
    press(first, "s")
    second.wait_for_function("() => document.getElementById('boxCount').textContent === '1'")
    drag(second, (30, 30), (40, 40))
    drag(first, (50, 50), (60, 60))
    press(first, "s")
    all_saved(first)
    press(second, "s")
    second.wait_for_selector("#conflict[open]")
    second.click("#keepMine")
    all_saved(second)
    boxes = [("scratch", (1.0, 1.0, 20.0, 20.0)), ("scratch", (30.0, 30.0, 40.0, 40.0))]
    assert boxes == stored(shared.served, shared.name)


def test_saves_of_one_image_follow_each_other(shared: Shared, opened: Opened) -> None:
    """A second save before the first was answered rests on the first, and is no conflict with it."""
    page = opened(shared)
    page.route("**/save", lambda route: None)
    drag(page, (1, 1), (20, 20))
    press(page, "s")
    drag(page, (30, 30), (40, 40))
    press(page, "s")
    press(page, "2")
    press(page, "s")
    page.unroute("**/save")  # lets go on what waits
    all_saved(page)
    boxes = [("scratch", (1.0, 1.0, 20.0, 20.0)), ("dent", (30.0, 30.0, 40.0, 40.0))]
    assert boxes == stored(shared.served, shared.name)


def test_later_save_takes_the_place_of_one_in_conflict(shared: Shared, opened: Opened) -> None:
    """Of two saves that meet another editor's, the person decides on the later one alone."""
    first, second = opened(shared), opened(shared)
    drag(second, (50, 50), (60, 60))
    drag(first, (1, 1), (20, 20))
    press(first, "s")
    all_saved(first)
    second.route("**/save", lambda route: None)
    press(second, "s")
    press(second, "2")
    press(second, "s")
    second.unroute("**/save")  # lets go on what waits
    second.wait_for_selector("#conflict[open]")
    assert second.get_attribute("#mine svg", "aria-label") == "dent 50,50 – 60,60 (10×10)"
    second.click("#keepMine")
    all_saved(second)
    assert [("dent", (50.0, 50.0, 60.0, 60.0))] == stored(shared.served, shared.name)


def test_reason_is_asked_once(shared: Shared, opened: Opened) -> None:
    """The first save of a session asks why; the answer is shown and stands beside every save after it."""
    page = opened(shared)
    page.evaluate("sessionStorage.clear()")
    drag(page, (1, 1), (20, 20))
    press(page, "s")
    page.wait_for_selector("#askWhy[open]")
    page.fill("#whyText", "week <12>")
    press(page, "Enter")
    page.wait_for_function("() => document.getElementById('why').textContent === 'week <12>'")
    all_saved(page)
    drag(page, (30, 30), (40, 40))
    press(page, "s")
    all_saved(page)
    changes = [change for change in read_history(shared.served.folder) if change.sample == shared.name]
    assert ["week <12>"] * 2 == [change.why for change in changes]


def test_queue_is_filtered_and_the_next_images_are_there(shared: Shared, opened: Opened) -> None:
    """The queue shows one class, what has no labels, or what was saved today; five images are fetched before their turn."""
    page = opened(shared)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    press(page, "2")
    drag(page, (1, 1), (20, 20))
    press(page, "s")
    all_saved(page)
    page.select_option("#show", "class dent")
    assert shared.name in page.inner_text("#queue")
    page.select_option("#show", "unlabelled")
    assert shared.name not in page.inner_text("#queue")
    page.select_option("#show", "today")
    assert shared.name in page.inner_text("#queue")
    page.select_option("#show", "all")
    page.goto("about:blank")
    page.goto(f"{shared.served.top}/#{SHARED - 10}")
    fetched(page, *range(SHARED - 10, SHARED - 4))
    asked.clear()
    page.locator("#stage").focus()
    press(page, "j")
    name_is(page, f"part{SHARED - 9:03}")
    fetched(page, SHARED - 4)
    assert not any(f"/sample/{SHARED - 9}" in url or f"/image/{SHARED - 9}" in url for url in asked)
    assert any(url.endswith(f"/sample/{SHARED - 4}") for url in asked)


def test_two_fingers_zoom_and_move(shared: Shared, opened: Opened) -> None:
    """Two fingers that part enlarge the image and draw nothing."""
    page = opened(shared)
    fingers = page.context.new_cdp_session(page)
    before = float(page.inner_text("#zoom").rstrip(" %"))
    (x, y), apart = on_screen(page, WIDTH / 2, HEIGHT / 2), 30

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": px, "y": py, "id": number} for number, (px, py) in enumerate(places)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (x - apart, y))
    touch("touchStart", (x - apart, y), (x + apart, y))
    for distance in range(apart, 4 * apart, 10):
        touch("touchMove", (x - distance, y), (x + distance, y))
    touch("touchEnd")
    page.wait_for_function("least => parseFloat(document.getElementById('zoom').textContent) > least", arg=2 * before)
    assert page.inner_text("#boxCount") == "0"


def test_copies_are_folded_and_labelled_on_request(tmp_path: Path, opened: Opened) -> None:
    """Near-duplicates stand behind one of them, with a badge; the same boxes are given to them only when asked."""
    rng = np.random.default_rng(3)
    boards = [draw_board(rng, size_px=(160, 160)) for _ in range(3)]
    samples = []
    for number in range(6):
        image = boards[number % 3].copy()
        image[0, : number // 3] ^= 1
        write_png(tmp_path / f"{number}.png", image)
        samples.append(Sample(tmp_path / f"{number}.png", None, (), f"g{number}", "", f"board{number}"))
    write_dataset(tmp_path / "boards", make_dataset("boards", samples, classes=CLASSES, origin=Origin("test", "here")))
    served = Served(tmp_path / "boards")
    try:
        page = opened(served)
        page.wait_for_function("() => document.querySelectorAll('#queue li').length === 3")
        page.wait_for_selector("#marks button")
        assert page.inner_text("#marks") == "+1 alike"
        drag(page, (5, 5), (20, 20))
        page.click("#marks button")
        page.click("#applyAlike")
        page.wait_for_function("() => document.getElementById('progressText').textContent === '2 of all 6 images done'")
        all_saved(page)
        changes = list(read_history(served.folder))
        assert 1 == len({int(change.sample[-1]) % 3 for change in changes})
        assert changes[0].why.endswith(f"(as on {changes[1].sample})")
        assert changes[0].after == changes[1].after
    finally:
        served.stop()


def test_undo_redo_move_size_reclass_and_delete(shared: Shared, opened: Opened) -> None:
    """Every change of a box can be made by mouse or keys, and taken back and made again."""
    page = opened(shared)
    drag(page, (10, 10), (30, 30))
    drag(page, (20, 20), (25, 28))  # the body of the selected box: moves it
    assert ["15", "18", "35", "38"] == [page.input_value(f"#{side}") for side in ("x1", "y1", "x2", "y2")]
    drag(page, (35.5, 38.5), (45.5, 40.5))  # the grip at its corner
    assert ["15", "18", "45", "40"] == [page.input_value(f"#{side}") for side in ("x1", "y1", "x2", "y2")]
    press(page, "2")
    assert "dent 15,18 – 45,40 (30×22)" in page.inner_text("#boxes")
    press(page, "Delete")
    assert page.inner_text("#boxCount") == "0"
    press(page, "z", 2)
    assert "scratch 15,18 – 45,40 (30×22)" in page.inner_text("#boxes")
    press(page, "z")
    assert "scratch 15,18 – 35,38 (20×20)" in page.inner_text("#boxes")
    press(page, "Shift+Z", 2)
    press(page, "Enter")
    all_saved(page)
    assert [("dent", (15.0, 18.0, 45.0, 40.0))] == stored(shared.served, shared.name)


def test_zoom_does_not_change_what_is_drawn(shared: Shared, opened: Opened) -> None:
    """Zoomed in and moved, a pixel is still a pixel, and it is shown as a square."""
    page = opened(shared)
    page.evaluate("window.turns = 0; document.addEventListener('wheel', () => { window.turns += 1; })")
    page.mouse.move(*on_screen(page, 40, 40))
    for turn in range(6):
        page.mouse.wheel(0, -120)
        page.wait_for_function("turns => window.turns === turns", arg=turn + 1)
    assert page.evaluate("getComputedStyle(document.querySelector('.picture')).imageRendering") == "pixelated"
    assert float(page.inner_text("#zoom").rstrip(" %")) > 2000
    drag(page, (41, 39), (43, 40))
    press(page, "f")
    press(page, "s")
    all_saved(page)
    assert [("scratch", (41.0, 39.0, 43.0, 40.0))] == stored(shared.served, shared.name)


def test_new_box_that_nobody_placed_is_no_label(shared: Shared, opened: Opened) -> None:
    """A box that the button put in the middle gives way to the one that is drawn, and is not saved before it is placed."""
    page = opened(shared)
    page.click("#new")
    press(page, "s")
    page.wait_for_function("() => document.getElementById('toast').textContent.includes('Not saved')")
    assert "not placed yet" in page.inner_text("#boxes")
    assert stored(shared.served, shared.name) == []
    drag(page, (3, 3), (20, 15))
    assert page.inner_text("#boxCount") == "1"
    press(page, "s")
    all_saved(page)
    assert [("scratch", (3.0, 3.0, 20.0, 15.0))] == stored(shared.served, shared.name)
    press(page, "n")
    press(page, "n")
    press(page, "ArrowRight")
    assert page.inner_text("#boxCount") == "2"
    assert "not placed yet" not in page.inner_text("#boxes")
    press(page, "s")
    all_saved(page)
    assert 2 == len(stored(shared.served, shared.name))


def test_new_class_is_for_the_next_box(shared: Shared, opened: Opened) -> None:
    """Adding classes leaves the selected box as it is, says so, and the next box is of the class added last."""
    page = opened(shared)
    drag(page, (3, 3), (20, 15))
    for name in ("hair", "flux"):
        page.click("#addClass")
        page.fill("#className", name)
        press(page, "Enter")
        page.wait_for_function("name => document.getElementById('classes').textContent.includes(name)", arg=name)
    assert "the selected box keeps its own" in page.inner_text("#toast")
    drag(page, (40, 40), (50, 50))
    press(page, "s")
    all_saved(page)
    assert ["scratch", "flux"] == [name for name, _ in stored(shared.served, shared.name)]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_conflict_is_read_from_its_beginning(
    shared: Shared, opened: Opened, width: int, height: int, language: str
) -> None:
    """Who saved in two windows is told that it was no other person; title, text, both pictures and buttons are in view."""
    first, second = opened(shared), opened(shared, width=width, height=height)
    second.goto(f"{shared.served.top}/?lang={language}#{shared.number}")
    name_is(second, shared.name)
    drag(first, (1, 1), (20, 20))
    drag(second, (50, 50), (60, 60))
    press(first, "s")
    all_saved(first)
    press(second, "s")
    second.wait_for_selector("#conflict[open]")
    said = second.inner_text("#conflictTitle")
    assert ("in another window" if language == "en" else "另一窗口") in said
    assert "ann" in second.inner_text("#conflictText")
    for part in ("#conflictTitle", "#conflictText", "#mine svg", "#theirs svg", "#keepMine", "#mergeBoth"):
        box = second.locator(part).bounding_box()
        assert box is not None
        assert 0 <= box["y"] <= height - box["height"], part
    second.click("#takeTheirs")


def test_outline_stays_unless_its_box_is_edited(shared: Shared, opened: Opened) -> None:
    """An outline of an earlier label is kept to the last digit; moving its box leaves it out and says so."""
    label = LabelledBox("dent", (10.0, 10.0, 40.5, 40.25), (OUTLINE,))
    page = opened(shared, number=0)
    drag(page, (60, 60), (70, 70))
    press(page, "s")
    all_saved(page)
    assert label in load_dataset(shared.served.folder).samples[0].labels
    press(page, "Escape")
    press(page, "b")
    press(page, "ArrowRight")
    assert "no longer fits" in page.inner_text("#toast")
    press(page, "s")
    all_saved(page)
    assert LabelledBox("dent", (11.0, 10.0, 41.5, 40.25)) in load_dataset(shared.served.folder).samples[0].labels


def test_good_part_is_told_from_one_nobody_looked_at(shared: Shared, opened: Opened) -> None:
    """A part without labels counts as looked at only after a person said that it is good."""
    page = opened(shared)
    before = int(page.inner_text("#progressText").split()[0])
    assert shared.name not in vouched_names(shared.served.folder)
    press(page, "g")
    assert page.get_attribute("#good", "aria-pressed") == "true"
    press(page, "Enter")
    all_saved(page)
    assert shared.name in vouched_names(shared.served.folder)
    page.reload()
    page.wait_for_selector("#name:not(:empty)")
    assert int(page.inner_text("#progressText").split()[0]) == before + 1


def test_escape_comes_first_and_must_be_drawn(shared: Shared, opened: Opened) -> None:
    """A part that a reviewer found defective is first in the queue and cannot be saved as a good one."""
    page = opened(shared, number=ESCAPE)
    assert "1 of" in page.inner_text("#place")
    assert "draw the defect" in page.inner_text("#marks")
    press(page, "Enter")
    assert "draw where" in page.inner_text("#toast")
    drag(page, (3, 3), (9, 9))
    press(page, "Enter")
    all_saved(page)
    assert load_dataset(shared.served.folder).to_draw == ()


def test_image_gone_under_the_editor(shared: Shared, opened: Opened) -> None:
    """A save of an image that is missing says so, is kept, does not hold up others, and goes through when it is back."""
    page = opened(shared)
    image = load_dataset(shared.served.folder).samples[shared.number].image
    drag(page, (3, 3), (9, 9))
    image.rename(image.with_suffix(".away"))
    press(page, "Enter")
    page.wait_for_function("() => document.getElementById('saving').textContent.includes('missing')")
    shared.number += 1
    name_is(page, shared.name)
    drag(page, (4, 4), (9, 9))
    press(page, "s")
    page.wait_for_selector('#saving[data-waiting="1"]')
    until_s = time.monotonic() + 60
    while not stored(shared.served, shared.name):
        assert time.monotonic() < until_s
    shared.number -= 1
    image.with_suffix(".away").rename(image)
    all_saved(page)
    assert [("scratch", (3.0, 3.0, 9.0, 9.0))] == stored(shared.served, shared.name)
    shared.number += 1


def test_image_that_cannot_be_read_is_not_drawn_on(shared: Shared, opened: Opened) -> None:
    """An image that is missing when it is opened says so, and takes no box in pixels that nobody knows."""
    image = load_dataset(shared.served.folder).samples[shared.number].image
    content = image.read_bytes()
    image.write_bytes(content[:-20])
    page = opened(shared)
    page.wait_for_selector("#trouble:not([hidden])")
    assert "another picture" in page.inner_text("#trouble")
    press(page, "n")
    assert page.inner_text("#boxCount") == "0"
    press(page, "j")
    page.wait_for_selector("#trouble", state="hidden")
    image.write_bytes(content)
    press(page, "k")
    name_is(page, shared.name)
    press(page, "n")
    assert page.inner_text("#boxCount") == "1"


def test_hostile_names_are_text(shared: Shared, opened: Opened) -> None:
    """Names of samples and classes with markup in them are shown as they are, and a new class may be named so as well."""
    page = opened(shared, number=1)
    assert page.inner_text("#name") == HOSTILE
    press(page, "3")
    drag(page, (3, 3), (9, 9))
    assert CLASSES[2] in page.inner_text("#boxes")
    page.click("#addClass")
    page.fill("#className", HOSTILE)
    press(page, "Enter")
    page.wait_for_function("name => document.getElementById('classes').textContent.includes(name)", arg=HOSTILE)
    page.locator("#classes button", has_text=HOSTILE).click()
    press(page, "s")
    all_saved(page)
    assert [HOSTILE] == [name for name, _ in stored(shared.served, HOSTILE)]
    assert page.locator("#relabel script, #relabel img:not(.picture)").count() == 0
    page.click("#addClass")
    page.fill("#className", "x" * 80)
    page.evaluate("document.getElementById('className').value = ' \\u0007'")
    press(page, "Enter")
    page.wait_for_selector("#classRefused:not(:empty)")


def test_uploaded_proposals_are_accepted_one_by_one(shared: Shared, opened: Opened, tmp_path: Path) -> None:
    """Boxes of a COCO file are shown as proposals; only what a person accepts becomes a label."""
    page = opened(shared)
    page.evaluate("document.querySelector('.panel details').open = true")
    file = tmp_path / "mine.json"
    file.write_bytes(b"\xff\xd8\xff no list")
    page.set_input_files("#upload", file)
    page.wait_for_function("() => document.getElementById('uploaded').textContent.includes('is an image')")
    rows = [
        {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 15], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": [50, 50, 8, 8]},
        {"image_id": 1, "category_id": 2, "bbox": [1, 1, 8, 8]},
    ]
    categories = [{"id": 1, "name": "dent"}, {"id": 2, "name": "<i>new</i>"}]
    images = [{"id": 1, "file_name": f"any/{shared.number:03}.png"}]
    file.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    page.set_input_files("#upload", file)
    page.wait_for_function("() => document.getElementById('proposalCount').textContent === '2'")
    assert "'<i>new</i>'" in page.inner_text("#uploaded")
    page.locator("#stage").focus()
    press(page, "a", 2)  # the first press selects
    press(page, "r")
    press(page, "s")
    all_saved(page)
    assert [("dent", (10.0, 10.0, 30.0, 25.0))] == stored(shared.served, shared.name)
    assert page.inner_text("#proposalCount") == "0"


def test_model_proposes_behind_the_page(demo_recipe: Path, tmp_path: Path, opened: Opened) -> None:
    """The page works at once; what the model finds appears as proposals when it is there, and is kept."""
    frame = demo_recipe / "selftest" / "two-defects.png"
    sample = Sample(frame, demo_recipe / "golden.png", (), "g", "", "two")
    classes = ("mousebite", "open", "short", "spur", "copper", "pinhole", "pin-hole", "missing_hole")
    dataset = make_dataset("boards", [sample], classes=classes, origin=Origin("test", "made here"))
    write_dataset(tmp_path / "boards", dataset)
    served = Served(tmp_path / "boards", "--model", str(demo_recipe / "model.onnx"))
    served.address += "#0"  # who went to an image is not led to another when the order is there
    try:
        page = opened(served)
        page.wait_for_function("() => Number(document.getElementById('proposalCount').textContent) >= 2")
        page.wait_for_function("() => document.getElementById('judging').textContent.includes('complete')")
        count = int(page.inner_text("#proposalCount"))
        page.wait_for_selector("svg .proposal .box")
        press(page, "Shift+A")
        press(page, "s")
        all_saved(page)
        assert count == len(stored(served, "two"))
        assert len(list((served.folder / ".cache" / "relabel").glob("judged-*.jsonl"))) == 1
    finally:
        served.stop()


def test_nobody_enters_without_the_address(shared: Shared, browser: Browser) -> None:
    """Without a token there is only a page that says where to find one; a used one lets nobody else in."""
    context = browser.new_context()
    page = context.new_page()
    try:
        for path in ("/", "/queue", "/sample/0", "/image/0/x", "/enter?token=guess"):
            page.goto(shared.served.top + path)
            assert page.locator("h1").inner_text() == "This page is for who started it"
        address = shared.address()
        page.goto(address)
        page.wait_for_selector("#name:not(:empty)")
        context.clear_cookies()
        page.goto(shared.served.top)
        page.goto(address)
        assert page.locator("h1").inner_text() == "This page is for who started it"
    finally:
        context.close()


def test_ended_session_loses_nothing(shared: Shared, opened: Opened) -> None:
    """A save after the session ended is kept and says what to do; opening a new address in another tab sends it."""
    page = opened(shared)
    page.context.clear_cookies()
    drag(page, (3, 3), (9, 9))
    press(page, "s")
    page.wait_for_function("() => document.getElementById('saving').textContent.includes('session has ended')")
    assert stored(shared.served, shared.name) == []
    tab = page.context.new_page()
    tab.goto(shared.address())
    tab.wait_for_selector("#name:not(:empty)")
    all_saved(page)
    assert [("scratch", (3.0, 3.0, 9.0, 9.0))] == stored(shared.served, shared.name)


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_page_can_be_used_by_everybody(shared: Shared, opened: Opened, width: int, height: int, language: str) -> None:
    """axe finds no serious fault, and nothing is wider than the screen."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason='needs axe: pip install -e ".[dev]"')
    page = opened(shared, width=width, height=height)
    page.goto(f"{shared.served.top}/?lang={language}")
    page.wait_for_selector("#name:not(:empty)")
    press(page, "n")
    found = axe.Axe().run(page).response["violations"]
    assert [] == [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
