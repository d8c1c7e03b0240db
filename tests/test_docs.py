"""The pages say what the program does: commands, keys, devices and files cannot drift away from them."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from datasets.importers import IMPORTERS
from inspection import cli, errors
from inspection.cameras import CAMERAS
from inspection.config import StationConfig
from inspection.controllers import CONTROLLERS
from inspection.recipe_config import Recipe
from tools.config_reference import PAGE, reference

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "deploy").rglob("*.md"))]


def text_of(*pages: Path) -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="lineside")
    verbs = made.add_subparsers()
    cli.add_verbs(verbs)
    return made


def verbs(of: argparse.ArgumentParser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Every command that can be run: its words, the help its parent shows, its parser."""
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, below in action.choices.items():
                deeper = list(verbs(below))
                yield from deeper or [(below.prog, helps.get(name, ""), below)]


COMMANDS = {words: (told, below) for words, told, below in verbs(parser())}


def models(kind: object) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from models(field.annotation)
    for part in get_args(kind):
        yield from models(part)


FIELDS = sorted({name for top in (Recipe, StationConfig) for model in models(top) for name in model.model_fields})


def test_commands_are_found() -> None:
    """The tests below look at every verb, those of other packages included."""
    assert {"lineside run", "lineside predict", "lineside recipe seal", "lineside train pcb", "lineside data import",
            "lineside evaluate"} <= set(COMMANDS)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_in_the_readme(command: str) -> None:
    """Every verb can be found by who reads the README alone."""
    assert re.search(rf"{re.escape(command)}\b", text_of(ROOT / "README.md"))


@pytest.mark.parametrize("command", COMMANDS)
def test_command_has_help(command: str) -> None:
    """The list of verbs says of each what it does."""
    told, below = COMMANDS[command]
    assert len(told) > 10
    assert command in below.format_help()


def test_commands_of_the_readme_exist() -> None:
    """No page promises a verb that is not there."""
    named = set(re.findall(r"`(lineside [a-z]+(?: [a-z]+)?)\b", text_of(*PAGES)))
    known = {" ".join(words.split()[:count]) for words in COMMANDS for count in (2, 3)}
    first = {words.split()[1] for words in COMMANDS}
    assert set() == {words for words in named if words not in known and words.split()[1] not in first}


@pytest.mark.parametrize("field", FIELDS)
def test_config_key_is_documented(field: str) -> None:
    """Every key of a recipe or a station config is on a page, written as a key."""
    assert re.search(rf"`{field}`|^{field} = ", text_of(*PAGES), re.MULTILINE)


def test_configuration_reference_is_current() -> None:
    """The page of all keys is what the models give: `python -m tools.config_reference` writes it."""
    assert reference() == PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*CAMERAS, *CONTROLLERS, *IMPORTERS])
def test_device_is_documented(name: str) -> None:
    """Every camera, controller and importer that can be named is on a page."""
    assert name in text_of(*PAGES)


ERRORS = [name for name, kind in vars(errors).items() if isinstance(kind, type)]


@pytest.mark.parametrize("name", ERRORS)
def test_error_is_in_the_tree(name: str) -> None:
    """The page of errors begins with the tree of all of them, and each says when it comes."""
    assert name in str(errors.__doc__)
    assert len(str(vars(errors)[name].__doc__)) > 30


def test_the_two_commands_of_the_readme_are_there() -> None:
    """What a newcomer is told to type exists."""
    told = re.findall(r"^python3 (\S+\.py)", text_of(ROOT / "README.md"), re.MULTILINE)
    assert ["tools/demo.py", "tools/check.py"] == told
    assert all((ROOT / name).is_file() for name in told)


def links() -> list[tuple[Path, str]]:
    found = []
    for page in [*PAGES, *(path for path in (ROOT / "CONTRIBUTING.md",) if path.exists())]:
        found += [(page, link) for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text_of(page)) if ":" not in link]
    return found


def test_links_between_pages_lead_somewhere() -> None:
    """A page that was moved takes its links along."""
    assert [] == [(page.name, link) for page, link in links() if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_programs_named_on_a_page_exist(page: Path) -> None:
    """`python -m tools.x`, `tools/x.py` and `tests/x.py` are files of the project."""
    text = text_of(page)
    named = {name.replace(".", "/") + ".py" for name in re.findall(r"python3? -m (tools\.\w+)", text)}
    named |= set(re.findall(r"\b((?:tools|tests)/[\w/]+\.py)", text))
    assert [] == sorted(name for name in named if not (ROOT / name).is_file())
