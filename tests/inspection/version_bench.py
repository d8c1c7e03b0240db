"""Challengers made by hand: what `lineside retrain` writes, without training anything."""

import json
import shutil
from pathlib import Path

from inspection.recipe import LOCK, lock_sha256, open_recipe, seal
from inspection.recipe_lock import file_hashes


def gates(**held: bool) -> list[dict[str, object]]:
    """All gates of a comparison, each held unless said otherwise."""
    names = ("escape_bound", "overkill", "returned_escapes", "latency")
    return [
        {"name": name, "held": held.get(name, True), "champion": 1.0, "challenger": 2.0, "text": "1 -> 2"}
        for name in names
    ]


def changed_toml(folder: Path, before: str, after: str) -> None:
    """Change recipe.toml without sealing it."""
    path = folder / "recipe.toml"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def challenger_of(recipe: Path, folder: Path, product: str = "newer", few: str = "") -> Path:
    """A sealed challenger of the recipe in force that held every gate; the product's name tells it apart."""
    shutil.copytree(recipe, folder, ignore=shutil.ignore_patterns(LOCK, "comparison.json"))
    toml = folder / "recipe.toml"
    lines = [line for line in toml.read_text(encoding="utf-8").splitlines() if not line.startswith("product")]
    toml.write_text("\n".join([f'product = "{product}"', *lines]) + "\n", encoding="utf-8")
    loaded = open_recipe(recipe, threads=1)
    comparison = {
        "schema": 1,
        "recipe_id": loaded.recipe_id,
        "champion_sha256": lock_sha256(recipe),
        "champion_model_sha256": loaded.model_sha256,
        "challenger_model_sha256": loaded.model_sha256,
        "challenger_files": file_hashes(folder),
        "gates": [{**gate, "few": few} for gate in gates()],
        "changed": [],
    }
    (folder / "comparison.json").write_text(json.dumps(comparison), encoding="utf-8")
    seal(folder)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with what is in it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
