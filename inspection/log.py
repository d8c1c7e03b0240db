"""One JSON line an event on stderr; stdout is for results."""

import json
import logging
import sys
from datetime import UTC, datetime


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: time (UTC), level, event, and the fields given as ``extra={"fields": ...}``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(level: str = "INFO") -> None:
    """Send the program's log to stderr as JSON lines."""
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(JsonLines())
    root = logging.getLogger("lineside")
    root.handlers[:] = [stream]
    root.setLevel(level)
    root.propagate = False


def event(name: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: object) -> None:
    """Log a fixed event word with its fields, and the traceback of ``error`` where one is given."""
    logging.getLogger("lineside").log(level, name, exc_info=error, extra={"fields": fields})
