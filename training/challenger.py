"""The challenger: a copy of a recipe's folder with a new model and new limits, sealed when all is known of it."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from inspection.errors import ConfigError
from inspection.images import write_whole
from inspection.promotion_gate import ABOUT_IT
from inspection.promotion_gate import COMPARISON as COMPARISON
from inspection.promotion_gate import NOTE as NOTE
from inspection.promotion_gate import PAGE as PAGE
from inspection.recipe import (
    LOCK,
    LoadedRecipe,
    open_recipe,
    read_selftests,
    run_selftest,
    seal,
    verify,
    write_selftests,
)
from inspection.recipe_config import RuleSection, load_recipe

_OF_ONE_VERSION = (LOCK, *ABOUT_IT)  # what a copy must not take over
_HEAD = re.compile(r"^\s*\[")
_VALUE = re.compile(r"^(\s*)(ng_score|review_score)(\s*=\s*)[^#\s]+")


def copy_recipe(champion: Path, folder: Path) -> None:
    """Copy a sealed recipe without its lock and without what is said of that version alone; replaces ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(champion, folder, ignore=lambda where, _: _OF_ONE_VERSION if Path(where) == champion else ())


def write_limits(folder: Path, role: str, rules: Sequence[RuleSection]) -> None:
    """Write the limits of a view's rules into ``recipe.toml`` and leave every other line as it is.

    ConfigError when its rules are not written as one table each, so that there is no line to change.
    """
    path = folder / "recipe.toml"
    recipe = load_recipe(path)
    view = recipe.views[role].model_copy(update={"rules": tuple(rules)})
    wanted = recipe.model_copy(update={"views": {**recipe.views, role: view}})
    text = "\n".join(_edited(path.read_text(encoding="utf-8").splitlines(), role, rules)) + "\n"
    write_whole(path, text.encode())
    if load_recipe(path) != wanted:
        raise ConfigError(
            f"the rules of view {role} in {path.name} are not written as tables of their own, so their limits cannot be changed",
            fix=f"write each rule under [[views.{role}.rules]] with ng_score and review_score on lines of their own, seal "
            "the recipe and retrain",
        )


def _edited(lines: Sequence[str], role: str, rules: Sequence[RuleSection]) -> list[str]:
    heads = {f"[[views.{role}.rules]]", f'[[views."{role}".rules]]'}
    edited, number, inside = [], -1, False
    for line in lines:
        if _HEAD.match(line) and "=" not in line.split("#")[0]:
            inside = line.split("#")[0].strip() in heads
            number += inside
        elif inside and number < len(rules):
            line = _with_limit(line, rules[number])
        edited.append(line)
    return edited


def _with_limit(line: str, rule: RuleSection) -> str:
    return _VALUE.sub(lambda found: f"{found[1]}{found[2]}{found[3]}{getattr(rule, found[2])!r}", line)


def renew_selftests(loaded: LoadedRecipe) -> list[tuple[str, str, str]]:
    """Record anew what the self-tests must give; the name, verdict before and verdict after of each that changed."""
    before = read_selftests(loaded.folder, loaded.cameras)
    if not before:
        return []
    write_selftests(loaded, [test.frames for test in before])
    after = read_selftests(loaded.folder, loaded.cameras)
    return [
        (old.name, _words(old.verdict, old.classes), _words(new.verdict, new.classes))
        for old, new in zip(before, after, strict=True)
        if (old.verdict, old.classes) != (new.verdict, new.classes)
    ]


def _words(verdict: str, classes: Sequence[str]) -> str:
    return f"{verdict} ({', '.join(classes)})" if classes else verdict


def seal_whole(partial: Path, target: Path, key: Ed25519PrivateKey | None) -> str:
    """Seal the folder, verify it as a station would, and give it its name; returns its SHA-256."""
    sealed = seal(partial, key)
    verify(partial)
    loaded = open_recipe(partial)
    run_selftest(loaded)
    partial.rename(target)
    return sealed
