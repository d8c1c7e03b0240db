"""The table of change points (which recipe and model judged from which row on) against what the records say."""

import json
import re
import sqlite3
from collections import deque

from inspection.audit.files import UNREADABLE
from inspection.audit.findings import Finding

Judge = tuple[str, str, str]  # recipe_id, SHA-256 of the recipe, SHA-256 of the model
TABLE = "judged_by"
RECIPE_ID, JSON = 4, 7  # columns of a record's content
# Inside a JSON text a quote is written \", so these can only be keys.
_KEYS = ("recipe_sha256", "model_sha256")
_PLAIN = tuple(re.compile(rf'"{key}":"([^"\\]*)"') for key in _KEYS)


class ChangePoints:
    """Sees every record in the order of the rows, and compares with the table as it goes."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.findings: deque[Finding] = deque(maxlen=1)
        self._rows = database.execute(
            f"SELECT first_row, recipe_id, recipe_sha256, model_sha256 FROM {TABLE} ORDER BY 1"
        )
        self._judge: Judge | None = None
        self._needles: tuple[str, ...] = ()

    def saw(self, number: int, content: tuple[object, ...]) -> None:
        """A record was read."""
        recipe_id, text = str(content[RECIPE_ID]), str(content[JSON])
        judge = self._judge
        if judge is not None and recipe_id == judge[0] and all(needle in text for needle in self._needles):
            return
        judge = (recipe_id, *_sums(text))
        if judge == self._judge:
            return
        self._judge = judge
        self._needles = tuple(f'"{key}":"{value}"' for key, value in zip(_KEYS, judge[1:], strict=True))
        self._compare(number, judge)

    def end(self) -> None:
        """After the last record."""
        self._compare(None, None)

    def _compare(self, number: int | None, judge: Judge | None) -> None:
        if self.findings:
            return  # the first is named
        try:
            row = self._rows.fetchone()
        except UNREADABLE as error:
            self.findings.append(Finding("damaged", f"{TABLE} cannot be read ({error})", table=TABLE))
            return
        if row is None and judge is None:
            return
        if row is None or judge is None or tuple(row) != (number, *judge):
            place = min(at for at in (number, None if row is None else row[0]) if at is not None)
            what = (
                f"row {place} of {TABLE} is missing: there another recipe or model began to judge" if row is None or place != row[0]
                else f"row {place} of {TABLE} is not what the records say: from there on {_named(judge)} judged"
                if judge is not None and row[0] == number
                else f"row {place} of {TABLE} was added: no other recipe or model began to judge there"
            )  # fmt: skip
            self.findings.append(Finding("change_point", what, table=TABLE, row=place))


def _named(judge: Judge) -> str:
    return f"recipe {judge[0]} ({judge[1][:12]}) with model {judge[2][:12]}"


def _sums(text: str) -> tuple[str, str]:
    found = [pattern.findall(text) for pattern in _PLAIN]
    if all(len(one) == 1 for one in found):
        return found[0][0], found[1][0]
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    return str(document.get(_KEYS[0]) or ""), str(document.get(_KEYS[1]) or "")
