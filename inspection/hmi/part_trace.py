"""What the page of one part shows of its trace.

A Tracer is made for each answer: what it knows of recipe versions may have changed by the next.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from inspection.hmi.context import Context
from inspection.trace import Tracer
from inspection.web.texts import Language, words

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
    """The trace of a record, the other records of its serial, and the words for all of it."""
    with tracer_of(context) as tracer:
        part = tracer.record(record_id)
        others = tracer.queries.of_serial(part.record.serial, MOST_OTHERS) if part and part.serial_used > 1 else []
        others = list(tracer.checked([line for line in others if line.record_id != record_id]))
    return {"trace": part, "others": others, "tr": words(language, SECTION), "week": timedelta(days=6)}
