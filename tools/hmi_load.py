"""Do the pages slow the line?  A station with a line at a fixed pace, with and without the pages and browsers on them.

    python -m tools.hmi_load --rounds 3 --seconds 30 --pace 10 --threads 2

The settings take turns within each round, so that a noisy machine disturbs all alike:

    alone              the station and its line
    pages              with `lineside hmi` and its pages open in browsers that get only what the station leaves of the
                       processors (deploy/install.md says how)
    pages, not idle    the same with browsers of the same priority as the station
    pages elsewhere    instead of browsers a program that takes all a page takes and draws nothing: what is left of the load
                       on this computer when the browsers run on others

Prints for each: parts, median and p99 from trigger to answer, and the p99 against that of the station alone; for the
pages also how long after the controller's answer a verdict was on a page (those that were overtaken are not shown).
"""

import argparse
import html
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "deploy" / "recipes" / "demo-pcb"
CHROMIUM = "/usr/bin/chromium"
SETTINGS = ("alone", "pages", "pages, not idle", "pages elsewhere")
SETTLE_S = 4.0
LIMIT_S = 60.0
PASSWORD = "only for this measurement"
WATCH = """
window.seen = {};
new MutationObserver(() => {
  const band = document.querySelector("#board:not(.unsure) .band");
  if (band && !(band.dataset.record in window.seen)) window.seen[band.dataset.record] = Date.now();
}).observe(document.body, { childList: true, subtree: true });
"""


@dataclass
class Measured:
    """What one setting gave, over all rounds."""

    answer_ms: list[float] = field(default_factory=list)
    page_ms: list[float] = field(default_factory=list)
    refused: int = 0


class Line:
    """A controller that presents a part at each beat and notes when it was answered."""

    def __init__(self, port: int) -> None:
        self._port = port

    def present(self, seconds: float, pace: float, measured: Measured) -> dict[str, float]:
        """Parts at ``pace`` a second; gives the moment of each answer (s since the epoch) by record."""
        run, answered = int.from_bytes(os.urandom(3)), {}
        with socket.create_connection(("127.0.0.1", self._port), timeout=LIMIT_S) as link, link.makefile("r") as said:
            began = time.monotonic()
            for beat in range(round(seconds * pace)):
                time.sleep(max(0.0, began + beat / pace - time.monotonic()))
                if time.monotonic() > began + seconds:
                    break
                sent = time.monotonic()
                _say(link, f"TRIGGER {run} {beat + 1} L{run}-{beat} LOAD -")
                words = _until(said, "RESULT", "REFUSED")
                if words[0] == "REFUSED":
                    measured.refused += 1
                    continue
                measured.answer_ms.append(1000 * (time.monotonic() - sent))
                answered[words[7]] = time.time()
                _say(link, f"ACK {run} {beat + 1}")
                _until(said, "ACKNOWLEDGED")
        return answered


def _say(link: socket.socket, line: str) -> None:
    link.sendall(line.encode("ascii") + b"\r\n")


def _until(said: TextIO, *wanted: str) -> list[str]:
    while words := said.readline().split():
        if words[0] in wanted:
            return words
    raise ConnectionError("the station closed the connection")


def write_config(folder: Path, *, port: int, threads: int) -> Path:
    """A station with good and defective boards by turns, every one with its picture."""
    (folder / "frames").mkdir()
    for number, name in enumerate(("good", "two-defects", "good", "four-defects")):
        shutil.copy(RECIPE / "selftest" / f"{name}.png", folder / "frames" / f"{number}.png")
    path = folder / "station.toml"
    path.write_text(
        f'station_id = "load"\nrecipe = {json.dumps(str(RECIPE))}\nstore = "records.sqlite"\nthreads = {threads}\n'
        '[evidence]\nfolder = "evidence"\nkeep = "all"\nmin_free_mb = 0\n'
        '[cameras.top]\nkind = "folder"\nfolder = "frames"\nloop = true\n'
        f'[controller]\nkind = "tcp_text"\nhost = "127.0.0.1"\nport = {port}\n',
        encoding="utf-8",
    )
    return path


@contextmanager
def process(*arguments: str, idle: bool = False, **more: Any) -> Iterator["subprocess.Popen[str]"]:
    """A child of this program; killed at the end."""
    command = [sys.executable, *arguments]
    scheduling = ["chrt", "--idle", "0"] if idle else []  # as deploy/install.md says
    child = subprocess.Popen([*scheduling, *command], cwd=ROOT, text=True, start_new_session=True, **more)
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # with the browsers it started
        child.communicate()


def wait_for(condition: Any, what: str) -> None:
    until_s = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > until_s:
            raise TimeoutError(what)
        time.sleep(0.05)


def reached(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def log_in(config: Path) -> tuple[str, str]:
    """Name and value of a session's cookie."""
    from inspection.config import load_station
    from inspection.hmi.app import AccountsGuard
    from inspection.hmi.context import Context

    context = Context(load_station(config))
    try:
        if context.accounts.find("load") is None:
            context.accounts.add("load", "operator", PASSWORD, by="tools.hmi_load", must_change=False)
        token = context.accounts.log_in("load", PASSWORD, address="127.0.0.1")
        return AccountsGuard(context, secure=False).cookie, token
    finally:
        context.close()


def browse(arguments: Sequence[str]) -> int:
    """The child that holds the browsers: opens the pages, says so, and tells what it saw when a line comes."""
    from playwright.sync_api import sync_playwright

    url, cookie, token, pages = arguments
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        opened = []
        for _ in range(int(pages)):
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            context.add_cookies([{"name": cookie, "value": token, "url": url}])
            opened.append(context.new_page())
            opened[-1].goto(url)
            opened[-1].wait_for_selector("#board:not(.unsure)", timeout=60000)
            opened[-1].evaluate(WATCH)
        print("open", flush=True)
        sys.stdin.readline()
        print(json.dumps([page.evaluate("window.seen") for page in opened]), flush=True)
        sys.stdin.readline()
        browser.close()
    return 0


def take(arguments: Sequence[str]) -> int:
    """The child that takes what the pages take: the stream of events and the pictures named in it, a thread for each."""
    url, cookie, token, pages = arguments
    host, seen = url.removeprefix("http://").rstrip("/"), [dict[str, float]() for _ in range(int(pages))]
    heads, open_all = {"Cookie": f"{cookie}={token}"}, threading.Barrier(int(pages) + 1)

    def one(number: int) -> None:
        opened = False
        stream, pictures = (http.client.HTTPConnection(host, timeout=LIMIT_S) for _ in range(2))
        stream.request("GET", "/board/stream", headers=heads)
        got: set[str] = set()
        for line in stream.getresponse():
            for name in re.findall(rb'data-record="([^"]+)"', line):
                seen[number].setdefault(name.decode(), 1000 * time.time())
            for source in re.findall(rb'<img src="([^"]+)"', line):
                if (address := html.unescape(source.decode())) not in got:
                    got.add(address)
                    pictures.request("GET", address, headers=heads)
                    pictures.getresponse().read()
            if line.startswith(b"event: beat") and not opened:
                opened = True
                open_all.wait()

    for number in range(int(pages)):
        threading.Thread(target=one, args=(number,), daemon=True).start()
    open_all.wait()
    print("open", flush=True)
    sys.stdin.readline()
    print(json.dumps(seen), flush=True)
    sys.stdin.readline()
    return 0


def with_pages(config: Path, line: Line, options: argparse.Namespace, measured: Measured, name: str) -> None:
    """One turn of a setting with the pages and browsers."""
    cookie, token = log_in(config)
    port = free_port()
    with ExitStack() as stack:
        stack.enter_context(
            process("-m", "inspection", "hmi", str(config), "--port", str(port), stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL)
        )  # fmt: skip
        wait_for(lambda: reached(port), "the pages do not start")
        url = f"http://127.0.0.1:{port}/"
        browsers = stack.enter_context(
            process("-m", "tools.hmi_load", "--take" if name == "pages elsewhere" else "--browse", url, cookie, token,
                    str(options.pages), idle=name != "pages, not idle",
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )  # fmt: skip
        assert browsers.stdin is not None
        assert browsers.stdout is not None
        if browsers.stdout.readline().strip() != "open":
            raise RuntimeError("the browsers did not open the pages")
        line.present(SETTLE_S, options.pace, Measured())
        answered = line.present(options.seconds, options.pace, measured)
        time.sleep(1.0)
        print("tell", file=browsers.stdin, flush=True)
        for seen in json.loads(browsers.stdout.readline()):
            measured.page_ms += [at - 1000 * answered[name] for name, at in seen.items() if name in answered]


def row(name: str, measured: Measured, alone: Measured) -> str:
    """One line of the table."""
    answer = np.array(measured.answer_ms)
    p99, before = np.percentile(answer, 99), np.percentile(alone.answer_ms, 99)
    page = np.array(measured.page_ms)
    seen = "" if not page.size else f"{np.median(page):.0f} / {np.percentile(page, 95):.0f} / {page.max():.0f}"
    return (
        f"| {name} | {answer.size} ({measured.refused} refused) | {np.median(answer):.1f} | {p99:.1f} | "
        f"{100 * (p99 / before - 1):+.1f} % | {seen} |"
    )


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["--browse"]:
        return browse(given[1:])
    if given[:1] == ["--take"]:
        return take(given[1:])
    parser = argparse.ArgumentParser(prog="hmi_load", description="Trigger to answer with and without the pages.")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each setting")
    parser.add_argument("--seconds", type=float, default=30, help="length of a turn")
    parser.add_argument("--pace", type=float, default=10, help="parts a second")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the detector")
    parser.add_argument("--pages", type=int, default=3, help="pages open in browsers")
    parser.add_argument("--settings", default=";".join(SETTINGS), help="which, with ';' between")
    options = parser.parse_args(given)
    wanted = options.settings.split(";")
    if set(wanted) - set(SETTINGS) or wanted[0] != "alone":
        parser.error(f"--settings: alone and some of {'; '.join(SETTINGS[1:])}")
    measured = {name: Measured() for name in wanted}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        port = free_port()
        config = write_config(Path(scratch), port=port, threads=options.threads)
        log = stack.enter_context((Path(scratch) / "log").open("w"))
        stack.enter_context(process("-m", "inspection", "run", str(config), stdout=log, stderr=log))
        wait_for(lambda: reached(port), "the station does not start")
        line = Line(port)
        line.present(SETTLE_S, options.pace, Measured())
        for number in range(options.rounds):
            for name in wanted[number % len(wanted) :] + wanted[: number % len(wanted)]:
                if name == "alone":
                    line.present(options.seconds, options.pace, measured[name])
                else:
                    with_pages(config, line, options, measured[name], name)
                print(f"round {number + 1}: {name} done", file=sys.stderr, flush=True)
    print(f"{options.pace:g} parts a second, {options.rounds} turns of {options.seconds:g} s, {options.pages} pages, "
          f"{os.cpu_count()} cores")  # fmt: skip
    print("| setting | parts | median ms | p99 ms | p99 against alone | verdict on the page: median / p95 / worst ms |")
    print("|---|---|---|---|---|---|")
    for name, found in measured.items():
        print(row(name, found, measured["alone"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
