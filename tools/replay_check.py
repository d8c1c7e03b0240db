"""Runs real parts through a real station, and then replays its records: every verdict and score must come again.

    python -m tools.replay_check FRAMES --parts 1000 [--model MODEL] [--recipe RECIPE] [--threads 1 2] [--out FOLDER]

FRAMES is a folder of pictures, looked through with its subfolders (DeepPCB: NAME_test.jpg with its golden NAME_temp.jpg
beside it).  A station process (`lineside run`) takes them from a folder camera, a PLC in this process asks for one part
after the other over text lines, and every picture is kept.  Then `lineside replay --random` inspects all of it again in a
process of its own, once for each number of threads.

Exit code: 0 all were the same, 1 something differed, 2 wrong usage.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspection.errors import InspectionError, UsageError
from inspection.images import IMAGE_SUFFIXES, golden_beside, is_golden
from inspection.model import load_model
from inspection.predict import rules_of
from inspection.recipe import seal

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "deploy" / "models" / "pcb-deeppcb.onnx"
START_LIMIT_S = 120.0
PART_LIMIT_S = 60.0
RECIPE_ID = "replay-check"
GOOD_EVERY = 5  # of frames with goldens every so many is the good board itself
REVIEW_SHARE = 0.5  # of the score for NG, from which a person must look


@dataclass(slots=True)
class TextPlc:
    """A PLC that presents one part after the other over text lines (deploy/tcp_text.md)."""

    connection: socket.socket
    pending: bytes = b""

    def say(self, line: str) -> None:
        """Send one line."""
        self.connection.sendall(line.encode("ascii") + b"\r\n")

    def hear(self, *words: str) -> list[str]:
        """The fields of the next line that begins with one of these words; everything else is passed over."""
        end_s = time.monotonic() + PART_LIMIT_S
        while time.monotonic() < end_s:
            line, found, rest = self.pending.partition(b"\n")
            if not found:
                piece = self.connection.recv(4096)
                if not piece:
                    raise ConnectionError("the station closed the connection")
                self.pending += piece
                continue
            self.pending = rest
            fields = line.decode("ascii").split()
            if fields and fields[0] in words:
                return fields
        raise TimeoutError(f"no {' or '.join(words)} within {PART_LIMIT_S:.0f} s")

    def inspect(self, run: int, sequence: int, serial: str) -> str:
        """Present a part as soon as the station is ready; the verdict it got."""
        while True:
            self.say("STATE?")
            if "ready=1" in self.hear("STATE"):
                break
            time.sleep(0.005)
        self.say(f"TRIGGER {run} {sequence} {serial} LOT{1 + sequence // 100} -")
        heard = self.hear("RESULT", "REFUSED")
        if heard[0] == "REFUSED" or heard[1:3] != [str(run), str(sequence)]:
            raise ConnectionError(f"part {sequence} was answered {' '.join(heard)}")
        self.say(f"ACK {run} {sequence}")
        self.hear("ACKNOWLEDGED")
        return heard[3]


def make_recipe(folder: Path, model: Path) -> None:
    """A sealed recipe for a model, by its own limits; each frame brings its golden where the model compares with one."""
    folder.mkdir(parents=True)
    shutil.copyfile(model, folder / "model.onnx")
    card = load_model(model, threads=1).card
    lines = [
        f'schema_version = 2\nrecipe_id = "{RECIPE_ID}"\nproduct = "{RECIPE_ID}"\ndeadline_ms = 20000',
        "",
        "[views.top]",
    ]
    lines += ['model = "model.onnx"', *(['golden = "with-frame"'] if card.golden_guided else [])]
    for rule in rules_of(card):
        lines += [
            "", "[[views.top.rules]]", f"defect_class = {json.dumps(rule.defect_class)}", f"ng_score = {rule.ng_score:.4g}",
            f"review_score = {REVIEW_SHARE * rule.ng_score:.4g}",
        ]  # fmt: skip
    (folder / "recipe.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    seal(folder)


def gather(source: Path, folder: Path, parts: int) -> list[str]:
    """Put the frames with their goldens into one folder; the serials of ``parts`` parts, which use them in turn."""
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and not is_golden(path))
    if not found:
        raise UsageError(f"there is no picture below {source}", fix="name the folder of the frames")
    folder.mkdir(parents=True)
    serials = []
    for number, path in enumerate(found[:parts]):
        serials.append(f"P{number:05}")
        golden = golden_beside(path)
        frame = golden if golden is not None and number % GOOD_EVERY == GOOD_EVERY - 1 else path
        shutil.copyfile(frame, folder / f"{serials[-1]}_test{frame.suffix.lower()}")
        if golden is not None:
            shutil.copyfile(golden, folder / f"{serials[-1]}_temp{golden.suffix.lower()}")
    return [serials[number % len(serials)] for number in range(parts)]


def write_config(folder: Path, recipe: Path, port: int) -> Path:
    """A station that keeps every picture, on one thread."""
    path = folder / "station.toml"
    path.write_text(
        f"""station_id = "replay-check"
recipe = {json.dumps(str(recipe))}
store = "records.sqlite"
threads = 1

[evidence]
folder = "evidence"
keep = "all"
queue = 10000

[cameras.top]
kind = "folder"
folder = "frames"

[controller]
kind = "tcp_text"
port = {port}
""",
        encoding="utf-8",
    )
    return path


def run_station(config: Path, port: int, serials: list[str]) -> dict[str, int]:
    """Present all parts to a station process and stop it; how many parts got each verdict."""
    counts: dict[str, int] = {}
    with (config.parent / "station.log").open("wb") as log:
        station = subprocess.Popen([sys.executable, "-m", "inspection", "run", str(config)], cwd=ROOT, stderr=log)
        try:
            with closing(_connected(port, station)) as connection:
                plc, run = TextPlc(connection), int(time.time()) % 2**32
                for sequence, serial in enumerate(serials, 1):
                    verdict = plc.inspect(run, sequence, serial)
                    counts[verdict] = counts.get(verdict, 0) + 1
            station.terminate()
            station.wait(timeout=START_LIMIT_S)
        finally:
            station.kill()
            station.wait()
    return counts


def _connected(port: int, station: "subprocess.Popen[bytes]") -> socket.socket:
    end_s = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end_s and station.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=PART_LIMIT_S)
        except OSError:
            time.sleep(0.1)
    raise ConnectionError("the station did not start: see station.log")


def replay(config: Path, count: int, threads: int, seed: int) -> dict[str, Any]:
    """What `lineside replay --random` found, as its JSON says."""
    command = [sys.executable, "-m", "inspection", "replay", str(config), "--random", str(count), "--seed", str(seed)]
    began_s = time.monotonic()
    answer = subprocess.run(
        [*command, "--threads", str(threads), "--json"], cwd=ROOT, stdout=subprocess.PIPE, check=False
    )
    if answer.returncode not in (0, 1):
        raise UsageError(f"`lineside replay` ended with {answer.returncode}", fix="see what it said")
    found: dict[str, Any] = json.loads(answer.stdout)
    found["seconds"] = round(time.monotonic() - began_s, 1)
    return found


def check(args: argparse.Namespace, folder: Path) -> int:
    """The whole way; prints the counts."""
    recipe = args.recipe or folder / "recipe"
    if args.recipe is None:
        make_recipe(recipe, args.model)
    serials = gather(args.frames, folder / "frames", args.parts)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    config = write_config(folder, recipe, port)
    began_s = time.monotonic()
    verdicts = run_station(config, port, serials)
    print(f"station: {len(serials)} parts in {time.monotonic() - began_s:.0f} s, {verdicts}")
    same = True
    for threads in args.threads:
        found = replay(config, args.parts, threads, args.seed)
        counts = found["counts"]
        same = same and counts["same"] == counts["records"] == args.parts
        print(f"replay with {threads} threads ({found['seconds']} s): {json.dumps(counts)}")
        for row in [row for row in found["records"] if row["outcome"] != "same"][:5]:
            print(f"  {row['serial']}: {row['text']} " + "; ".join(one["text"] for one in row["differences"][:3]))
    print("all verdicts, findings, scores and measured values are the same" if same else "NOT all are the same")
    return 0 if same else 1


def main(arguments: list[str] | None = None) -> int:
    """Parse, check, print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="tools.replay_check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("frames", type=Path, metavar="FRAMES")
    parser.add_argument("--parts", type=int, default=1000, help="parts that are judged and replayed (default: 1000)")
    parser.add_argument("--model", type=Path, default=MODEL, help="model file (default: the one of DeepPCB)")
    parser.add_argument(
        "--recipe", type=Path, help="a sealed recipe with the view top, in place of one made of the model"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads of each replay (default: 1 2)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="keep everything in this new folder (default: a temporary one)")
    args = parser.parse_args(arguments)
    try:
        if args.out is not None:
            args.out.mkdir(parents=True)
            return check(args, args.out.resolve())
        with tempfile.TemporaryDirectory() as scratch:
            return check(args, Path(scratch))
    except InspectionError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
