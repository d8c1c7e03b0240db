"""What the page of one part shows of its trace.

A Tracer is made for each answer: what it knows of recipe versions may have changed by the next.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

from inspection.hmi.context import Context
from inspection.trace import Tracer
from inspection.web.texts import Language, all_words, words

SECTION = "trace"
MOST_OTHERS = 100  # further records of a serial that are listed


@contextmanager
def tracer_of(context: Context) -> Iterator[Tracer]:
    """A Tracer for one answer."""
    tracer = Tracer(context.config, context.reader)
    try:
        yield tracer
    finally:
        tracer.close()


def part_trace(context: Context, record_id: str, language: Language) -> dict[str, Any]:
    """The trace of a record, the other records of its serial, what was measured, and the words for all of it."""
    with tracer_of(context) as tracer:
        part = tracer.record(record_id)
        others = tracer.queries.of_serial(part.record.serial, MOST_OTHERS) if part and part.serial_used > 1 else []
        others = list(tracer.checked([line for line in others if line.record_id != record_id]))
    return {
        "trace": part, "others": others, "tr": words(language, SECTION), "week": timedelta(days=6),
        "measured": named(language, "quantity", part.record.measured if part else ()),
    }  # fmt: skip


def named(
    language: Language, table: Literal["stage", "quantity"], figures: Iterable[tuple[str, float]]
) -> list[tuple[str, float]]:
    """Figures called ``ROLE.NAME`` with their names in words; a name that has none stays as it is."""
    known, told = all_words(language)[table], []
    for figure, value in figures:
        role, _, name = figure.rpartition(".")
        word = known.get(name, name)
        told.append((f"{role}: {word}" if role else word, value))
    return told
