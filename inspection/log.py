"""One JSON line an event on stderr; stdout is for results."""

import json
import logging
import sys
from datetime import UTC, datetime

OWN = "lineside"


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: time (UTC), level, event, and the fields given as ``extra={"fields": ...}``.

    What a library logs is the event ``library.log`` with its name and its text.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **(
                {"event": record.getMessage(), **getattr(record, "fields", {})}
                if record.name == OWN
                else {"event": "library.log", "library": record.name, "text": record.getMessage()}
            ),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(level: str = "INFO") -> None:
    """Send the program's log, and the warnings of the libraries it uses, to stderr as JSON lines."""
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(JsonLines())
    own, root = logging.getLogger(OWN), logging.getLogger()
    own.handlers[:] = [stream]
    own.setLevel(level)
    own.propagate = False
    root.handlers[:] = [other for other in root.handlers if not isinstance(other.formatter, JsonLines)] + [stream]


def event(name: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: object) -> None:
    """Log a fixed event word with its fields, and the traceback of ``error`` where one is given."""
    logging.getLogger(OWN).log(level, name, exc_info=error, extra={"fields": fields})
