"""The systemd units: systemd itself reads them, and they shut what station, pages and retention do not need."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "deploy" / "systemd"
UNIT = UNITS / "lineside.service"
MOST_EXPOSED = 2.5  # of 10; systemd 252 gives 1.8


@pytest.fixture(params=("lineside.service", "lineside-hmi.service", "lineside-retention.service"))
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit with a program that exists here, which is all that systemd misses."""
    copy = tmp_path / request.param
    copy.write_text(
        (UNITS / copy.name).read_text(encoding="utf-8").replace("/opt/lineside/current/bin/lineside", "/bin/true")
    )
    return copy


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze reads the unit; install it with: apt-get install systemd")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)


def test_systemd_takes_the_unit(unit: Path) -> None:
    """No unknown key, no wrong value."""
    done = analyze("verify", str(unit))
    # What else is wrong with this machine's own units is not ours.
    assert [] == [line for line in (done.stdout + done.stderr).splitlines() if "lineside" in line]
    assert 0 == done.returncode


def test_little_is_left_open(unit: Path) -> None:
    """The exposure that systemd computes stays low."""
    done = analyze("security", "--offline=true", "--no-pager", str(unit))
    found = re.search(r"exposure level for \S+\.service: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSED


@pytest.mark.parametrize(
    "line",
    ["Type=notify", "User=lineside", "Restart=on-failure", "RestartPreventExitStatus=2", "NoNewPrivileges=yes",
     "ProtectSystem=strict", "PrivateTmp=yes", "ReadWritePaths=/var/lib/lineside", "KillSignal=SIGTERM"],
)  # fmt: skip
def test_the_promises_of_the_page_stand_in_the_unit(line: str) -> None:
    """deploy/install.md says so."""
    assert line in UNIT.read_text(encoding="utf-8").splitlines()


def test_the_watchdog_is_longer_than_the_longest_deadline() -> None:
    """A station that waits for a slow camera is not killed for it."""
    from inspection.recipe_config import Recipe

    longest_ms = next(limit.le for limit in Recipe.model_fields["deadline_ms"].metadata if hasattr(limit, "le"))
    found = re.search(r"^WatchdogSec=(\d+)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    assert longest_ms < 1000 * int(found[1])


@pytest.mark.parametrize(
    "line",
    ["Nice=19", "CPUSchedulingPolicy=batch", "IOSchedulingClass=idle", "User=lineside", "PrivateNetwork=yes",
     "RestartPreventExitStatus=2", "Restart=on-failure"],
)  # fmt: skip
def test_retention_stands_behind_everything_else(line: str) -> None:
    """It takes only the time that nobody needs, and reaches no network."""
    assert line in (UNITS / "lineside-retention.service").read_text(encoding="utf-8").splitlines()
