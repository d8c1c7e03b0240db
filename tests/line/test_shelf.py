"""The recipes that a station has at hand: what is verified when one is asked for."""

from pathlib import Path

from line_bench import Bench, simulated_line, until

from inspection.config import load_station
from inspection.shelf import Prepared, Shelf


def asked(shelf: Shelf, recipe_id: str) -> Prepared:
    """What becomes of a recipe that is asked for."""
    shelf.prepare(recipe_id)
    (ended,) = until(shelf.finished)
    return ended


def other_recipe(bench: Bench) -> Path:
    (bench.folder / "recipes").mkdir()
    bench.recipe("first", lambda text: text.replace('"demo-pcb"', '"first"', 1))
    return bench.recipe("recipes/other", lambda text: text.replace('"demo-pcb"', '"other"', 1))


def test_a_recipe_that_was_edited_since_it_was_loaded_is_refused_when_it_is_asked_for(bench: Bench) -> None:
    """Files are held against their seal at each request, also of a recipe in memory; what is in memory still judges."""
    toml = other_recipe(bench) / "recipe.toml"
    shelf = Shelf(
        load_station(bench.config(simulated_line("G1"), recipe=bench.folder / "first", top='recipes = "recipes"'))
    )
    try:
        assert Prepared("other", None, False) == asked(shelf, "other")
        loaded, sealed = shelf.take("other"), toml.read_text(encoding="utf-8")
        toml.write_text(sealed + "\n# edited\n", encoding="utf-8")
        refusal = asked(shelf, "other").refusal
        assert refusal is not None
        assert ("recipe.refused", True) == (refusal.rule_id, "recipe.toml was changed" in refusal.text)
        assert loaded is shelf.take("other")
        toml.write_text(sealed, encoding="utf-8")
        assert None is asked(shelf, "other").refusal
        assert loaded is shelf.take("other")  # as it was sealed again, so there was nothing to load
    finally:
        shelf.close()
