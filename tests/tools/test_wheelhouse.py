"""Installation without a network: the wheels, release.sh, and a station that runs from nothing else."""

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.wheelhouse import environment_variables, installed_mb, make

ROOT = Path(__file__).resolve().parents[2]
MOST_MB = 400
LIMIT_S = 600
STATION = """
station_id = "offline-1"
recipe = "{root}/deploy/recipes/demo-pcb"
store = "records.sqlite"
threads = 1

[evidence]
folder = "evidence"

[cameras.top]
kind = "folder"
folder = "{root}/deploy/recipes/demo-pcb/selftest"
loop = true

[controller]
kind = "simulated"
parts = 5
"""

Release = Callable[..., subprocess.CompletedProcess[str]]


def run(*command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**environment_variables(), "OMP_NUM_THREADS": "1", **more}
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=LIMIT_S, env=environment, cwd="/"
    )


def release_in(home: Path, config: Path, **more: str) -> Release:
    """release.sh on a folder of its own, without a service unless told."""
    settings = {"LINESIDE_HOME": str(home), "LINESIDE_CONFIG": str(config), "LINESIDE_SERVICE": "",
                "LINESIDE_PYTHON": sys.executable, **more}  # fmt: skip
    return lambda *words: run("sh", ROOT / "deploy" / "release.sh", *words, **settings)


# A station from wheels alone


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels of the runtime with Modbus."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    probe = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder / "probe"),
        "packaging",
    ]
    if subprocess.run(probe, capture_output=True, timeout=LIMIT_S).returncode:
        pytest.skip("pip reaches no package index; connect one (PIP_INDEX_URL) to test the offline installation")
    make(folder / "wheels", ("modbus",))
    return folder / "wheels"


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tmp_path_factory.mktemp("station") / "station.toml"
    config.write_text(STATION.format(root=ROOT), encoding="utf-8")
    return config


@pytest.fixture(scope="module")
def installed(wheels: Path, station: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the release in use, installed as on a station."""
    home = tmp_path_factory.mktemp("home")
    done = release_in(home, station, PIP_INDEX_URL="http://127.0.0.1:9/none", PIP_RETRIES="0")("install", wheels)
    assert 0 == done.returncode, done.stderr
    return home / "current"


def test_every_wheel_is_listed_with_its_sum(wheels: Path) -> None:
    """`sha256sum -c` and `pip --require-hashes` see every file."""
    listed = (wheels / "SHA256SUMS").read_text(encoding="utf-8")
    pinned = (wheels / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = [wheel.name for wheel in wheels.glob("*.whl")]
    assert all(name in listed for name in names)
    assert len(names) == len(pinned)
    assert all("==" in line and "--hash=sha256:" in line for line in pinned)


def test_the_wheel_holds_every_file_of_the_runtime(wheels: Path) -> None:
    """Pages, nodesets and other files beside the Python modules are not left behind."""
    with zipfile.ZipFile(next(wheels.glob("lineside-*.whl"))) as wheel:
        packed = set(wheel.namelist())
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "inspection").rglob("*") if path.is_file()}
    assert set() == {name for name in wanted if "__pycache__" not in name} - packed


def test_the_installation_is_small_and_has_no_torch(installed: Path) -> None:
    """A station computer needs little disk and nothing of training."""
    size_mb = installed_mb(installed.resolve())
    print(f"installed: {size_mb:.0f} MB")
    assert size_mb < MOST_MB
    done = run(installed / "bin" / "python", "-c", "import importlib.util as u; print(u.find_spec('torch'))")
    assert "None" == done.stdout.strip()


def test_the_installed_station_checks_itself(installed: Path, station: Path) -> None:
    """Config, seal and self-test pass with what was installed."""
    done = run(installed / "bin" / "lineside", "check", station)
    assert 0 == done.returncode, done.stderr
    assert "config ok" in done.stdout


def test_the_installed_station_answers_parts(installed: Path, station: Path) -> None:
    """It starts cold, says Ready, answers five parts and ends; the time to Ready is printed."""
    began_s = time.monotonic()
    command = [str(installed / "bin" / "lineside"), "run", str(station)]
    environment = {**environment_variables(), "OMP_NUM_THREADS": "1"}
    events, ready_s = [], -1.0
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd="/") as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                events.append(json.loads(line)["event"])
                if events[-1] == "station.ready":
                    ready_s = time.monotonic() - began_s
            assert 0 == process.wait(timeout=60), events
        finally:
            process.kill()
    print(f"cold start to Ready: {ready_s:.1f} s")
    assert 5 == events.count("part.judged")
    assert 0 < ready_s < 60


def test_a_damaged_folder_is_not_installed(wheels: Path, station: Path, tmp_path: Path) -> None:
    """A wheel that was changed on the way is found before anything is installed."""
    copy = tmp_path / "wheels"
    copy.mkdir()
    for file in wheels.iterdir():
        os.link(file, copy / file.name)
    victim = next(copy.glob("packaging-*.whl"))
    octets = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(octets[:-1] + b"?")
    done = release_in(tmp_path / "home", station)("install", copy)
    assert 1 == done.returncode
    assert "is damaged" in done.stderr
    assert not (tmp_path / "home").exists()


# Update and going back; the releases are two programs that only take or refuse a config


def program(home: Path, version: str, *, takes_config: bool = True) -> None:
    folder = home / "releases" / version / "bin"
    folder.mkdir(parents=True)
    (folder / "lineside").write_text(f"#!/bin/sh\necho {version}\nexit {0 if takes_config else 2}\n")
    (folder / "lineside").chmod(0o755)
    (home / "releases" / version / "installed").touch()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "station.toml").touch()
    for version in ("1.0", "1.1"):
        program(tmp_path, version)
    return tmp_path


def in_use(home: Path) -> str:
    return run(home / "current" / "bin" / "lineside").stdout.strip()


def test_update_and_back_are_one_command_each(home: Path) -> None:
    """After going back and forth the links name the release in use and the one before."""
    release = release_in(home, home / "station.toml")
    assert [0, 0] == [release("use", version).returncode for version in ("1.0", "1.1")]
    assert "1.1" == in_use(home)
    assert "- 1.0\n* 1.1\n" == release("list").stdout
    assert release("back").stdout.endswith("in use: 1.0\n")
    assert "1.0" == in_use(home)
    assert release("back").stdout.endswith("in use: 1.1\n")


def test_a_release_that_refuses_the_config_is_not_used(home: Path) -> None:
    """The station keeps the release that works."""
    program(home, "1.2", takes_config=False)
    release = release_in(home, home / "station.toml")
    release("use", "1.1")
    done = release("use", "1.2")
    assert (1, True) == (done.returncode, "nothing was changed" in done.stderr)
    assert "1.1" == in_use(home)


def test_a_release_that_does_not_start_is_put_back(home: Path, tmp_path: Path) -> None:
    """When the service does not become ready with the new release, the old one is in use again."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "systemctl").write_text(f'#!/bin/sh\n[ "$(readlink {home}/current)" = releases/1.0 ]\n')  # only 1.0 starts
    (tools / "systemctl").chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    release = release_in(home, home / "station.toml", LINESIDE_SERVICE="lineside.service", PATH=path)
    assert 0 == release("use", "1.0").returncode
    done = release("use", "1.1")
    assert (1, True) == (done.returncode, "1.0 is in use again" in done.stderr)
    assert "1.0" == in_use(home)


@pytest.mark.parametrize("words", [("back",), ("use", "9.9"), ("install", "/nowhere"), ("away",), ()])
def test_a_wrong_command_changes_nothing(home: Path, words: tuple[str, ...]) -> None:
    """Each mistake is named, and nothing is changed."""
    done = release_in(home, home / "station.toml")(*words)
    assert 1 == done.returncode
    assert done.stderr
    assert not (home / "current").exists()
