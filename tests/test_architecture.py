"""Which way imports point, and what the runtime must not do, read from the sources."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("inspection", "datasets", "training", "tools")  # each may import those before it
OURS = {*LAYERS, "tests"}
FILES = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
RUNTIME = sorted((ROOT / "inspection").rglob("*.py"))
FOREIGN = ("torch", "torchvision", "ultralytics", "albumentations", "matplotlib", "pandas", "scipy", "onnx", "openvino",
           "pymodbus", "paho", "httpx", "psycopg", "tqdm", "training", "datasets", "tools")  # fmt: skip
# Each place says beside the line why it must catch everything.
BROAD_EXCEPTS = {
    "inspection/cameras/driver_process.py": 3,  # drivers raise classes of their own, in opening, grabbing and closing
    "inspection/detector.py": 1,  # onnxruntime raises unrelated classes
    "inspection/inspector.py": 1,  # whatever goes wrong with a part is that part's ERROR
    "inspection/onnx_session.py": 2,  # onnxruntime raises unrelated classes
    "inspection/evidence.py": 1,  # nothing that goes wrong with a picture may stop the thread
    "inspection/notary.py": 1,  # a thread that is gone would be missed only at the next audit
    "inspection/outbox.py": 1,  # whatever a driver raises, the publisher's thread goes on trying
    "inspection/shelf.py": 1,  # a recipe must not end the thread that loads the next
    "inspection/hmi/watch.py": 1,  # the thread that looks for new records goes on looking
    "inspection/web/shell.py": 1,  # whatever goes wrong with a page is that page's error
    "inspection/station.py": 1,  # the top level: the unforeseen ends the station in state Error
}
PRINTERS = {
    "inspection/cli.py",
    "inspection/predict_cli.py",
    "inspection/station_cli.py",
    "inspection/trace_cli.py",
    "inspection/audit_cli.py",
    "inspection/replay_cli.py",
    "inspection/report_cli.py",
    "inspection/recipe_cli.py",
    "inspection/cameras_cli.py",
    "inspection/hmi_cli.py",
    "inspection/retention_cli.py",
    "inspection/web/serve.py",  # the address to open
}  # stdout is the result of a command


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path, *, at_load: bool = False) -> Iterator[str]:
    """Modules a file imports, anywhere in it or only where loading it runs them."""
    tree = tree_of(path)
    nodes: Iterator[ast.AST] = iter(tree.body) if at_load else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_sources_are_found() -> None:
    """The tests below look at something."""
    assert {"inspection/station.py", "datasets/manifest.py", "training/train.py", "tools/demo.py"} <= set(
        map(short, FILES)
    )


@pytest.mark.parametrize("path", FILES, ids=short)
def test_arrows_point_one_way(path: Path) -> None:
    """tools -> training -> datasets -> inspection, never back, and none of them imports the tests."""
    layer = path.relative_to(ROOT).parts[0]
    allowed = {*LAYERS[: LAYERS.index(layer) + 1]}
    assert {name.split(".")[0] for name in imports(path)} & OURS <= allowed


@pytest.mark.parametrize("name", ["types.py", "errors.py"])
def test_bottom_modules_import_only_the_standard_library_and_numpy(name: str) -> None:
    """The words everything else speaks depend on nothing of ours."""
    tops = {module.split(".")[0] for module in imports(ROOT / "inspection" / name)}
    assert tops <= {*sys.stdlib_module_names, "numpy"}


def test_runtime_declares_what_it_imports() -> None:
    """A station that installs the base dependencies and the extras it uses has all the runtime needs."""
    tops = {module.split(".")[0] for path in RUNTIME for module in imports(path)} - sys.stdlib_module_names
    required = {"numpy", "cv2", "onnxruntime", "pydantic", "pydantic_core", "cryptography", "prometheus_client"}
    extras = {"asyncua", "paho", "httpx", "psycopg", "zxingcpp", "gi", "pypylon", "openvino"}
    extras |= {"starlette", "uvicorn", "h11", "jinja2", "argon2"}  # the pages; h11 comes with uvicorn
    extras |= {"polars", "matplotlib", "scipy"}  # the report
    assert tops - {"inspection"} <= required | extras
    assert extras <= tops


def test_there_are_no_import_cycles() -> None:
    """Every module can be loaded before those that import it."""
    modules = {module_name(path): path for path in FILES}
    graph = {}
    for name, path in modules.items():
        wanted = [*imports(path, at_load=True), name]
        with_packages = {".".join(one.split(".")[: end + 1]) for one in wanted for end in range(one.count(".") + 1)}
        graph[name] = (with_packages & set(modules)) - {name}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as cycle:
        pytest.fail(f"modules import each other: {' -> '.join(cycle.args[1])}")


def test_deploy_holds_no_python() -> None:
    """What is deployed is data."""
    assert [] == sorted((ROOT / "deploy").rglob("*.py"))


def test_importing_the_whole_runtime_loads_nothing_foreign() -> None:
    """No module of the runtime brings torch, a driver package, or anything of ours above it; charts come with the report."""
    names = [module_name(path) for path in RUNTIME if path.name != "__main__.py" and path.parent.name != "report"]
    program = f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\nprint(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(answer.stdout.split())
    assert "inspection.station" in loaded
    assert set(names) <= loaded
    assert set() == {name.split(".")[0] for name in loaded} & set(FOREIGN)


def test_help_of_the_command_loads_no_torch() -> None:
    """Looking up a verb takes a moment, not the seconds that torch needs."""
    program = (
        "import sys\nfrom inspection.cli import main\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"torch", "matplotlib", "albumentations", "scipy"}.isdisjoint(answer.stdout.split())


def broad(path: Path) -> int:
    """How many handlers of a file catch everything and do not hand it on."""
    count = 0
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            names = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else {"bare"}
            last = node.body[-1]
            hands_on = isinstance(last, ast.Raise) and last.exc is None
            count += bool(names & {"Exception", "BaseException", "bare"}) and not hands_on
    return count


def test_everything_is_caught_only_in_the_listed_places() -> None:
    """A broad except is where a failed inspection turns into nothing found; each one is named above."""
    found = {short(path): broad(path) for path in RUNTIME if broad(path)}
    assert found == {name: count for name, count in BROAD_EXCEPTS.items() if (ROOT / name).exists()}


def test_no_handler_of_the_runtime_is_silent() -> None:
    """What is caught is answered: a handler that only passes says in a comment why."""
    silent = []
    for path in RUNTIME:
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ExceptHandler) and all(isinstance(step, ast.Pass) for step in node.body):
                around = lines[node.lineno - 1 : node.body[-1].lineno]
                silent += [] if any("#" in line for line in around) else [f"{short(path)}:{node.lineno}"]
    assert silent == []


@pytest.mark.parametrize("path", RUNTIME, ids=short)
def test_runtime_checks_are_no_asserts(path: Path) -> None:
    """`python -O` removes asserts, and with them the check."""
    assert [] == [node.lineno for node in ast.walk(tree_of(path)) if isinstance(node, ast.Assert)]


@pytest.mark.parametrize("path", RUNTIME, ids=short)
def test_runtime_does_not_print(path: Path) -> None:
    """stdout belongs to the commands; everything else logs or raises."""
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    printed = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert printed == [] or short(path) in PRINTERS


@pytest.mark.parametrize("path", RUNTIME, ids=short)
def test_runtime_keeps_no_module_state(path: Path) -> None:
    """No function of the runtime changes a module's variable."""
    assert [] == [node.lineno for node in ast.walk(tree_of(path)) if isinstance(node, ast.Global)]


@pytest.mark.parametrize("path", FILES, ids=short)
def test_files_are_named_after_a_thing(path: Path) -> None:
    """A name that says nothing is no module."""
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc", "core"}
