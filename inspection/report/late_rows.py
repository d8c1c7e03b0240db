"""The true results of parts that missed their deadline, which came after their controller was told ERROR."""

import sqlite3

from inspection.report.contents import Span
from inspection.report.snapshot import where


def late_verdicts(database: sqlite3.Connection, span: Span) -> dict[int, str]:
    """The verdict of each late result of a span, by its record's row; ``unreadable`` where it is damaged."""
    condition, values = where(span)
    # CROSS JOIN keeps SQLite from going through all records: late results are few.
    sql = f"""SELECT records.rowid, CASE WHEN json_valid(late_results.json)
                                  THEN CAST(json_extract(late_results.json, '$.judgement.verdict') AS BLOB) END
              FROM late_results CROSS JOIN records ON records.record_id = late_results.record_id WHERE {condition}"""
    rows = database.execute(sql, values)
    return {rowid: (verdict or b"unreadable").decode("utf-8", "replace") for rowid, verdict in rows}
