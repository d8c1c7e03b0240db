"""What keeps a station from starting: an exit code and two lines, never a traceback."""

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from line_bench import FOLDER, Bench, Child, free_port, lock_as_it_is, modbus_line, simulated_line

from inspection.cli import main
from inspection.model import CARD_KEY


@pytest.fixture
def frames(bench: Bench) -> None:
    bench.frame("A", bench.sealed_frame("OK"))


def refused(bench: Bench, config: Path) -> tuple[int, str, str]:
    """Exit code and the two lines of a station that does not start; above them stands nothing but its log."""
    child = bench.start(config)
    code = child.ended()
    child.close()
    *log, what, fix = child.log.splitlines()
    assert all("event" in json.loads(line) for line in log)
    assert not fix.startswith("{")
    return code, what, fix


def checked(config: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `lineside check` says of a mistake: exit code 2, two lines, nothing on stdout."""
    assert main(["check", str(config)]) == 2
    said = capsys.readouterr()
    assert (said.out, len(said.err.splitlines())) == ("", 2)
    assert "Traceback" not in said.err
    return said.err


# The station itself


@pytest.mark.parametrize("name", ["recipe.toml", "golden.png", "model.onnx"])
def test_a_changed_recipe_file_is_refused(bench: Bench, frames: None, name: str) -> None:
    """A recipe that is not what was sealed does not run: exit code 2, the file is named."""
    recipe = bench.recipe("changed")
    with (recipe / name).open("ab") as file:
        file.write(b"\n")
    code, what, fix = refused(bench, bench.config(modbus_line(free_port()), recipe=recipe))
    assert (code, f"{name} was changed" in what, "seal it again" in fix) == (2, True, True)
    assert not bench.store.exists()


def test_a_recipe_that_judges_otherwise_here_is_refused(bench: Bench, frames: None) -> None:
    """A self-test with another verdict than the sealed one keeps the station off the line: exit code 2."""
    recipe = bench.recipe("other")
    (recipe / "selftest").mkdir()
    shutil.copyfile(recipe / "golden.png", recipe / "selftest" / "golden.png")
    rows = '[{"frame": "golden.png", "verdict": "NG", "classes": ["open"]}]'
    (recipe / "selftest" / "expected.json").write_text(rows, encoding="utf-8")
    (recipe / "recipe.lock").unlink()
    lock_as_it_is(recipe)
    code, what, fix = refused(bench, bench.config(modbus_line(free_port()), recipe=recipe))
    assert (code, "expected NG" in what, "do not run it" in fix) == (2, True, True)


def test_a_missing_camera_folder_is_a_device_error(bench: Bench) -> None:
    """No folder for the camera: exit code 3, the folder is named."""
    code, what, fix = refused(bench, bench.config(modbus_line(free_port())))
    assert (code, str(bench.folder / "frames") in what, "create the folder" in fix) == (3, True, True)


def test_a_taken_port_is_a_device_error(bench: Bench, frames: None) -> None:
    """Another program on the port: exit code 3, the port is named."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, what, fix = refused(bench, bench.config(modbus_line(port)))
    assert (code, f"port {port}" in what, "set another port" in fix) == (3, True, True)


def test_a_missing_folder_for_the_store_is_a_device_error(bench: Bench, frames: None) -> None:
    """No place for records, no station: exit code 3."""
    config = bench.config(modbus_line(free_port()))
    config.write_text(config.read_text().replace("records.sqlite", "nowhere/records.sqlite"))
    code, what, fix = refused(bench, config)
    assert (code, "there is no folder" in what, fix) == (3, True, "create the folder")


@pytest.fixture
def running(bench: Bench, frames: None) -> Iterator[Child]:
    child = bench.start(bench.config(modbus_line(free_port())))
    yield child.ready()
    child.close()


def test_a_second_station_on_the_same_store_is_a_device_error(bench: Bench, running: Child) -> None:
    """A station that is started twice by mistake leaves the first one alone: exit code 3."""
    code, what, fix = refused(bench, bench.config(modbus_line(free_port())))
    assert (code, "another station is running" in what, "store of its own" in fix) == (3, True, True)
    assert running.stop() == 0


def test_a_station_with_a_finished_line_ends_with_0(bench: Bench, frames: None) -> None:
    """`lineside run` with a simulated line ends when its last part was answered."""
    child = bench.start(bench.config(simulated_line("A", "A")))
    assert (child.ended(), len(child.events("part.judged"))) == (0, 2)
    child.close()
    assert len(bench.records()) == 2


# The command line


def test_a_good_setup_is_told(bench: Bench, frames: None, capsys: pytest.CaptureFixture[str]) -> None:
    """`lineside check` of a good config says what would run and opens nothing."""
    assert main(["check", str(bench.config(modbus_line(1502)))]) == 0
    assert "config ok" in capsys.readouterr().out
    assert not bench.store.exists()


def test_folders_that_cannot_be_used_are_told_at_once(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """`lineside check` tries the folders of store, evidence and cameras, and lists all that are missing or full."""
    (bench.folder / "evidence").write_text("a file in the way")
    config = bench.config(modbus_line(1502), evidence="")
    text = config.read_text(encoding="utf-8").replace('"records.sqlite"', '"nowhere/records.sqlite"')
    config.write_text(text.replace('folder = "frames"', 'folder = "no frames"'), encoding="utf-8")
    said = checked(config, capsys)
    assert "store: there is no folder" in said
    assert "evidence: " in said
    assert "is no folder" in said
    assert "camera top: camera 'top' cannot read its folder" in said

    (bench.folder / "evidence").unlink()
    config = bench.config(modbus_line(1502), camera=f'kind = "folder"\nfolder = "{bench.sealed / "selftest"}"')
    text = config.read_text(encoding="utf-8").replace("min_free_mb = 0", "min_free_mb = 999999999")
    config.write_text(text, encoding="utf-8")
    assert "no picture would be written" in checked(config, capsys)


def test_a_file_that_is_no_text_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture given in place of the config is called no text file, with the place."""
    path = tmp_path / "station.toml"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    assert "is no text file: byte 0 is 0x89" in checked(path, capsys)


@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_missing_station_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    """No file, exit code 2, and its path is said."""
    path = tmp_path / "none.toml"
    if verb == "check":
        assert str(path) in checked(path, capsys)
        return
    child = Child(path)
    assert (child.ended(), str(path) in child.log, len(child.log.splitlines())) == (2, True, 2)
    child.close()


def test_all_mistakes_are_told_at_once(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown keys, values out of range and wrong kinds are listed together with file and key."""
    wrong = bench.config(modbus_line(99_999), camera=f"{FOLDER}\nspeed = 3", evidence="queue = 0", top='colour = "red"')
    said = checked(wrong, capsys)
    assert str(wrong) in said
    assert "4 mistakes" in said
    keys = (
        "colour: unknown key",
        "evidence.queue",
        "cameras.top.folder.speed: unknown key",
        "controller.modbus_tcp.port",
    )
    assert [key for key in keys if key not in said] == []


def test_a_file_that_is_no_toml_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A syntax error is told with its line."""
    path = tmp_path / "station.toml"
    path.write_text("station_id = \n")
    assert "line 1" in checked(path, capsys)


def test_a_missing_recipe_folder_is_named(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """No recipe, exit code 2, and its path is said."""
    missing = bench.folder / "no-recipe"
    assert str(missing) in checked(bench.config(modbus_line(1502), recipe=missing), capsys)


def test_a_recipe_without_its_golden_is_refused(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """A golden that is missing since the sealing, and one that was missing then, are both named."""
    recipe = bench.recipe("bare")
    (recipe / "golden.png").unlink()
    config = bench.config(modbus_line(1502), recipe=recipe)
    assert "golden.png is missing" in checked(config, capsys)
    (recipe / "recipe.lock").unlink()
    lock_as_it_is(recipe)
    assert "golden.png" in checked(config, capsys)


def test_a_model_without_a_card_is_refused(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """A model whose classes and thresholds are unknown judges nothing."""
    recipe = bench.recipe("bare", lock=False)
    model = (recipe / "model.onnx").read_bytes()
    (recipe / "model.onnx").write_bytes(model.replace(CARD_KEY.encode(), CARD_KEY.upper().encode()))
    lock_as_it_is(recipe)
    assert "has no ModelCard" in checked(bench.config(modbus_line(1502), recipe=recipe), capsys)


def test_a_file_that_is_no_model_is_refused(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged model file is named."""
    recipe = bench.recipe("bare", lock=False)
    (recipe / "model.onnx").write_bytes(b"not a model")
    lock_as_it_is(recipe)
    assert "is not a readable ONNX model" in checked(bench.config(modbus_line(1502), recipe=recipe), capsys)


def test_a_recipe_for_another_camera_is_refused(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """The camera that the recipe looks through and those of the station are named."""
    recipe = bench.recipe("side", lambda toml: toml.replace("views.top", "views.side"))
    said = checked(bench.config(modbus_line(1502), recipe=recipe), capsys)
    assert "looks through camera 'side'" in said
