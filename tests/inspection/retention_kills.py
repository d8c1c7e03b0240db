"""Kills retention at every step, with SIGKILL, and looks at what is left: python retention_kills.py FOLDER.

Each time a copy of FOLDER is worked on by a process that is killed before the n-th call that writes, commits, flushes or
removes; then by one that is not.  Prints {"kills": count, "wrong": [what was found]}.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from inspection.audit.pictures import check_pictures
from inspection.config import load_station
from inspection.evidence_ledger import LEDGER, MARK, MIGRATIONS, ledger_path
from inspection.read_only import ReadOnlyFile
from inspection.retention.run import Retention
from inspection.retention.stop import Stop

CALLS = {"execute", "executemany", "unlink", "fsync", "write", "rmdir"}


def run(folder: Path, kill_at: int = 0) -> int:
    """One pass in a process of its own, killed at a call when ``kill_at``; gives the status it ended with."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    retention = Retention(load_station(folder / "station.toml"), Stop())
    count = 0

    def watch(frame: Any, what: str, call: Any) -> None:
        nonlocal count
        # Between two such calls nothing changes; what ``rows`` executes only reads.
        if what == "c_call" and call.__name__ in CALLS and frame.f_code.co_name != "rows":
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)
    retention.one_pass()
    sys.setprofile(None)
    retention.close()
    os._exit(0)


def wrong(folder: Path, finished: bool) -> list[str]:
    """What is not as it must be: after a kill, or after the run that finished."""
    ledger = ReadOnlyFile(ledger_path(folder / "records.sqlite"), LEDGER, mark=MARK, newest=len(MIGRATIONS))
    try:
        audit = check_pictures(ledger.path, folder / "evidence").said
        found = [finding.what for finding in (*audit.findings, *audit.damage)]
        rows = {row[0] for row in ledger.rows("SELECT file FROM pictures UNION SELECT new_file FROM compressed")}
        rows |= set() if finished else {row[0] for row in ledger.rows("SELECT file FROM unfinished")}
        there = {path.relative_to(folder / "evidence").as_posix() for path in (folder / "evidence").rglob("*.*")}
        found += [f"no row for {file}" for file in sorted(there - rows)]
        if finished:
            found += [f"unfinished {row}" for row in ledger.rows("SELECT * FROM unfinished")]
            counts = [ledger.rows(f"SELECT count(*) FROM {table}")[0][0] for table in ("compressed", "deleted")]
            found += [] if counts == [1, 2] else [f"compressed, deleted: {counts}"]
            size = sum((folder / "evidence" / file).stat().st_size for file in there)
            told = ledger.rows("SELECT sum(bytes) FROM present")[0][0]
            found += [] if told == size else [f"{told} bytes are said to be present, {size} are"]
        return found
    finally:
        ledger.close()


def main() -> None:
    """Kill at the first call, the second, and so on until a pass comes to its end."""
    told: dict[str, Any] = {"kills": 0, "wrong": []}
    with tempfile.TemporaryDirectory(dir=Path(sys.argv[1]).parent) as scratch:
        for number in range(1, 2000):
            folder = Path(scratch) / str(number)
            shutil.copytree(sys.argv[1], folder)
            status = run(folder, number)
            told["wrong"] += [f"killed at {number}: {text}" for text in wrong(folder, status == 0)]
            if status == 0:
                break
            told["kills"] += os.WIFSIGNALED(status)
            again = run(folder)
            told["wrong"] += [f"after {number}: {text}" for text in wrong(folder, True)]
            told["wrong"] += [f"after {number}: the run ended with {again}"] if again else []
            shutil.rmtree(folder)
    print(json.dumps(told))


main()
