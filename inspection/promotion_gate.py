"""What a challenger must bring before it takes the place of the recipe in force.

``lineside retrain`` judges the same frozen parts by the recipe in force (the champion) and by the new one (the
challenger), and writes what it found into ``comparison.json`` in the challenger's folder, under its lock.  It speaks of the
files that were judged by and of no others: a challenger that was edited afterwards has to be compared anew.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inspection.errors import GateNotMet
from inspection.recipe import LoadedRecipe
from inspection.recipe_lock import lock_sha256, read_lock

COMPARISON, PAGE, NOTE = "comparison.json", "comparison.html", "version.txt"
ABOUT_IT = (COMPARISON, PAGE, NOTE)  # written after the comparison, and nothing is judged by them
NEEDED = ("escape_bound", "overkill", "latency")  # without one of these nothing is known about it
_MOST_BYTES = 50_000_000
_NAMED = 8
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Gate(BaseModel):
    """One thing that must not be worse than with the recipe in force; ``few`` says that too few parts bear it out."""

    model_config = ConfigDict(frozen=True)

    name: str
    held: bool
    text: str
    few: str = ""


class Comparison(BaseModel):
    """What ``comparison.json`` says that a promotion hangs on.

    ``challenger_files``: the SHA-256 of every file that the challenger was judged by.  None: an earlier version wrote it, and
    what it speaks of is not known.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: Annotated[Literal[1], Field(alias="schema")]
    recipe_id: str
    champion_sha256: _Sha256
    challenger_model_sha256: str
    challenger_files: dict[str, _Sha256] | None = None
    gates: tuple[Gate, ...]


def read_comparison(challenger: Path) -> Comparison:
    """The comparison in a challenger's folder; GateNotMet when there is none, or it is of another form."""
    path = challenger / COMPARISON
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        return Comparison.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise GateNotMet(
            f"{challenger} has no {COMPARISON}: nobody compared it with the recipe in force",
            fix="make it by `lineside retrain RECIPE --with DATASET -o OUT`, and promote OUT/recipe",
        ) from None
    except (OSError, ValidationError, ValueError) as error:
        keys = [".".join(map(str, row["loc"])) for row in error.errors()] if isinstance(error, ValidationError) else []
        raise GateNotMet(
            f"{path} cannot be used: {', '.join(keys) or error}", fix="make the challenger anew by `lineside retrain`"
        ) from error


def gate_warnings(challenger: Path) -> tuple[str, ...]:
    """Which gates of a comparison were held on so few parts that little is known; GateNotMet as ``read_comparison``."""
    return tuple(f"{gate.name}: {gate.few}" for gate in read_comparison(challenger).gates if gate.held and gate.few)


def require_gates(challenger: LoadedRecipe, champion: LoadedRecipe) -> None:
    """GateNotMet unless the challenger, as its lock names it, was compared with this very champion and held every gate.

    The caller has compared the challenger's folder with its lock.
    """
    comparison = read_comparison(challenger.folder)
    other = {comparison.recipe_id, challenger.recipe_id} - {champion.recipe_id}
    if other:
        raise GateNotMet(
            f"{challenger.folder} is a version of recipe {', '.join(sorted(other))}; in force in {champion.folder} is "
            f"{champion.recipe_id}",
            fix="name the recipe that it was retrained from",
        )
    if challenger.sha256 == champion.sha256:
        raise GateNotMet(
            f"{challenger.folder} is already in force in {champion.folder} ({champion.sha256[:16]})",
            fix="there is nothing to promote",
        )
    if comparison.champion_sha256 != champion.sha256:
        raise GateNotMet(
            f"{challenger.folder} was compared with version {comparison.champion_sha256[:16]}; in force is "
            f"{champion.sha256[:16]}",
            fix=f"compare it with the version in force: `lineside retrain {champion.folder} ...`",
        )
    if comparison.challenger_model_sha256 != challenger.model_sha256:
        raise GateNotMet(
            f"the comparison in {challenger.folder} is about another model ({comparison.challenger_model_sha256[:16]}) than "
            f"the one it holds ({challenger.model_sha256[:16]})",
            fix="make the challenger anew by `lineside retrain`",
        )
    _require_same_files(challenger.folder, comparison.challenger_files)
    _require_held(challenger.folder, comparison.gates)


def _require_same_files(challenger: Path, compared: dict[str, str] | None) -> None:
    if compared is None:
        raise GateNotMet(
            f"the {COMPARISON} in {challenger} does not say of which files it speaks: an earlier version wrote it",
            fix="run `lineside retrain` again, into a new folder",
        )
    sealed = {name: sha256 for name, sha256 in read_lock(challenger).files.items() if name not in ABOUT_IT}
    if sealed != compared:
        other = sorted(name for name in sealed.keys() | compared if sealed.get(name) != compared.get(name))
        raise GateNotMet(
            f"{challenger} was changed after it was compared: {', '.join(other[:_NAMED])}"
            + (f" and {len(other) - _NAMED} more" if len(other) > _NAMED else ""),
            fix="make the change in the recipe in force, seal it, and run `lineside retrain` again",
        )


def _require_held(challenger: Path, gates: tuple[Gate, ...]) -> None:
    failed = [f"{gate.name}: {gate.text}" for gate in gates if not gate.held]
    failed += [f"{name}: not measured" for name in NEEDED if name not in {gate.name for gate in gates}]
    if failed:
        raise GateNotMet(
            f"{challenger} ({lock_sha256(challenger)[:16]}) does not hold {len(failed)} of its gates: "
            + "; ".join(failed),
            fix="give it more or better labelled parts and retrain; the recipe in force stays",
        )
