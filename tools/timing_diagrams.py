"""Draws the timing diagrams of the line interfaces into deploy/: `python -m tools.timing_diagrams`.

Each picture has a normal part above and a fault below.  Time runs to the right and is not to scale.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
WIDTH_PX, DPI = 900, 100
ROW_INCH, HEAD_INCH, NOTE_INCH = 0.29, 0.5, 0.19
HIGH = 0.62  # of a row
PLC, STATION = "#1f5fa8", "#b3541e"
GREY = "#9a9a9a"


@dataclass(frozen=True)
class Level:
    """A signal that is 0 or 1: the times at which it changes, from 0 unless ``begins`` says 1."""

    name: str
    colour: str
    changes: tuple[float, ...]
    begins: int = 0


@dataclass(frozen=True)
class Said:
    """What one side sends: times and, to the right of each, the words."""

    name: str
    colour: str
    at: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Held:
    """A value that stands from one time to another, with what it is."""

    name: str
    colour: str
    spans: tuple[tuple[float, float, str], ...]


Row = Level | Said | Held


@dataclass(frozen=True)
class Panel:
    """One course of events: rows from above, and numbered moments with a sentence each."""

    title: str
    rows: tuple[Row, ...]
    moments: tuple[tuple[float, str], ...]
    end: float = 100.0


MODBUS = (
    Panel(
        "One part",
        (
            Held("request  0..39", PLC, ((2, 78, "part 17"), (78, 100, "part 18"))),
            Level("trigger  42", PLC, (10, 66, 84)),
            Level("acknowledge  41", PLC, (66, 76)),
            Level("trigger_ready  103", STATION, (12, 62, 86), begins=1),
            Level("busy  104", STATION, (12, 56, 86)),
            Level("acquired  133", STATION, (30, 86)),
            Held("result  114..131", STATION, ((56, 70, "part 17"),)),
            Level("valid  132", STATION, (56, 70)),
        ),
        (
            (10, "trigger goes to 1 when the request is whole"),
            (30, "acquired: every picture is taken, the part may move"),
            (56, "the record is stored: result and valid in one step, busy falls"),
            (66, "the PLC has read the result of its own run and sequence: acknowledge 1, trigger 0"),
            (70, "valid falls and the result registers are 0 again; then acknowledge 0"),
        ),
    ),
    Panel(
        "Refused while busy, then a lost acknowledge",
        (
            Held("request  0..39", PLC, ((2, 24, "part 17"), (24, 100, "part 18"))),
            Level("trigger  42", PLC, (8, 22, 28, 40, 66)),
            Level("acknowledge  41", PLC, ()),
            Level("trigger_ready  103", STATION, (10, 56, 68), begins=1),
            Level("busy  104", STATION, (10, 50, 68, 94)),
            Held("reject_code  109", STATION, ((30, 100, "1 BUSY, of part 18"),)),
            Held("result  114..131", STATION, ((50, 68, "part 17"), (94, 100, "18"))),
            Level("valid  132", STATION, (50, 68, 94)),
            Held("lost_acks  106", STATION, ((2, 68, "0"), (68, 100, "1"))),
        ),
        (
            (28, "another part while busy: refused with its run and sequence, never inspected, never queued"),
            (50, "part 17 gets its own answer; the PLC never acknowledges it"),
            (66, "part 18 again, now that trigger_ready is 1: accepted"),
            (68, "the old result is cleared and lost_acks counts up; the line goes on"),
        ),
    ),
)

TCP_TEXT = (
    Panel(
        "One part",
        (
            Said("PLC says", PLC, ((10, "TRIGGER 7 17 SN-1 - -"), (66, "ACK 7 17"), (88, "TRIGGER 7 18"))),
            Said("station: accepted", STATION, ((13, "ACCEPTED 7 17"), (91, "ACC..."))),
            Said("station: acquired", STATION, ((32, "ACQUIRED 7 17"),)),
            Said("station: result", STATION, ((56, "RESULT 7 17 OK 0 0 83 c0ffee..."),)),
            Said("station: state", STATION, ((62, "STATE Ready ready=1 ..."),)),
            Said("station: acknowledged", STATION, ((70, "ACKNOWLEDGED 7 17"),)),
            Level("ready", STATION, (13, 62, 91), begins=1),
            Level("busy", STATION, (13, 56, 91)),
            Held("result stands", STATION, ((56, 70, "part 17"),)),
        ),
        (
            (10, "the PLC presents part 17 of run 7 while ready=1"),
            (32, "every picture is taken: the part may move"),
            (56, "the record is stored: the result is sent, and stands"),
            (62, "said without being asked: the next part may come"),
            (70, "acknowledged: the result no longer stands"),
        ),
    ),
    Panel(
        "Refused while busy, connection lost, acknowledge lost",
        (
            Said("PLC says", PLC, ((6, "TRIGGER 7 17"), (22, "TRIGGER 7 18"), (58, "RESULT?"), (78, "TRIGGER 7 18"))),
            Said("station: accepted", STATION, ((9, "ACCEPTED 7 17"), (81, "ACCEPTED 7 18"))),
            Said("station: refused", STATION, ((25, "REFUSED 7 18 BUSY"),)),
            Said("station: result", STATION, ((61, "RESULT 7 17 NG 1 2 91 ..."),)),
            Level("connection", PLC, (40, 56), begins=1),
            Level("ready", STATION, (9, 52, 81), begins=1),
            Level("busy", STATION, (9, 47, 81)),
            Held("result stands", STATION, ((47, 81, "part 17"),)),
            Held("lost_acks", STATION, ((2, 81, "0"), (81, 100, "1"))),
        ),
        (
            (22, "another part while busy: refused, never inspected, never queued"),
            (47, "part 17 is finished while nobody is connected: its result stands"),
            (58, "the PLC is back and asks what stands"),
            (81, "part 18 is accepted; 17 was not acknowledged: its result is replaced and lost_acks counts up"),
        ),
    ),
)

OPCUA = (
    Panel(
        "One part",
        (
            Said("client calls", PLC, ((10, "StartSingleJob(part 17)"), (88, "StartSingle..."))),
            Said("method answers", STATION, ((14, "JobId 17, Error 0"),)),
            Said("event JobStarted", STATION, ((17, "JobId 17"),)),
            Said("event AcquisitionDone", STATION, ((34, "JobId 17"),)),
            Said("event ResultReady", STATION, ((56, "JobId 17, ResultContent: verdict ..."),)),
            Said("event Ready", STATION, ((64, "JobId 17"),)),
            Held(
                "CurrentState", STATION,
                ((2, 14, "Ready"), (14, 64, "SingleExecution"), (64, 91, "Ready"), (91, 100, "Single...")),
            ),
            Held("GetResultById", STATION, ((56, 100, "result of job 17 can be fetched"),)),
        ),
        (
            (10, "the client starts a job while the state is Ready"),
            (34, "AcquisitionDone: every picture is taken, the part may move"),
            (56, "the record is stored: ResultReady carries the result; match it by JobId"),
            (64, "Ready: the next job may be started"),
        ),
    ),
    Panel(
        "Refused while busy, then the session lost",
        (
            Said("client calls", PLC, ((6, "StartSingleJob(17)"), (28, "StartSingleJob(18)"), (70, "GetResultById"))),
            Said("method answers", STATION, ((9, "JobId 17, Error 0"), (31, "Error 1: BUSY"), (74, "result of job 17"))),
            Said("event JobStarted", STATION, ((12, "JobId 17"),)),
            Level("session", PLC, (44, 66), begins=1),
            Said("event ResultReady", STATION, ((54, "JobId 17: nobody hears it"),)),
            Held("CurrentState", STATION, ((1, 9, "Ready"), (9, 58, "SingleExecution"), (58, 100, "Ready"))),
            Held("GetResultById", STATION, ((54, 100, "result of job 17 can be fetched"),)),
        ),
        (
            (28, "a job while another is in progress is refused by the method itself; it is never queued"),
            (54, "job 17 is finished while the client is away: its result is kept"),
            (70, "the client is back and fetches the result by its id"),
        ),
    ),
)  # fmt: skip

DIAGRAMS = {"timing_modbus.png": MODBUS, "timing_tcp_text.png": TCP_TEXT, "timing_opcua.png": OPCUA}


def draw(panels: tuple[Panel, ...], path: Path) -> None:
    """Write the panels, one above the other, as a PNG of ``WIDTH_PX`` pixels width."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    heights = [HEAD_INCH + ROW_INCH * len(panel.rows) + NOTE_INCH * (len(panel.moments) + 1) for panel in panels]
    with pyplot.rc_context({"font.size": 8.5, "font.family": "DejaVu Sans"}):
        figure = pyplot.figure(figsize=(WIDTH_PX / DPI, sum(heights)), dpi=DPI)
        top = sum(heights)
        for panel, height in zip(panels, heights, strict=True):
            top -= height
            axes = figure.add_axes((0.0, top / sum(heights), 1.0, height / sum(heights)))
            _draw_panel(axes, panel, height)
        figure.savefig(path, dpi=DPI)
        pyplot.close(figure)
    _fewer_colours(path)


def _fewer_colours(path: Path) -> None:
    """Thirty-two colours are plenty for lines and letters, and make the file small."""
    from PIL import Image

    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(32)
    few.save(path, optimize=True)


def _draw_panel(axes: Any, panel: Panel, height: float) -> None:
    left, right = 0.185, 0.985

    def x(time: float) -> float:
        return left + (right - left) * time / panel.end

    axes.set_xlim(0, 1)
    axes.set_ylim(0, height)
    axes.axis("off")
    axes.text(0.012, height - 0.2, panel.title, weight="bold", size=10, va="center")
    first = height - HEAD_INCH
    for place, row in enumerate(panel.rows):
        bottom = first - ROW_INCH * (place + 1) + ROW_INCH * (1 - HIGH) / 2
        axes.text(left - 0.012, bottom + ROW_INCH * HIGH / 2, row.name, color=row.colour, ha="right", va="center")
        _draw_row(axes, row, bottom, x)
    last = first - ROW_INCH * len(panel.rows)
    for number, (time, sentence) in enumerate(panel.moments, 1):
        axes.plot([x(time)] * 2, [last, first + 0.03], color=GREY, linewidth=0.8, linestyle=(0, (3, 3)), zorder=0)
        axes.text(x(time), first + 0.08, str(number), color="#333333", ha="center", va="center", size=8)
        axes.text(left, last - NOTE_INCH * number + 0.03, f"{number}  {sentence}", color="#333333", va="center")


def _draw_row(axes: Any, row: Row, bottom: float, x: Any) -> None:
    high = ROW_INCH * HIGH
    white = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    match row:
        case Level(colour=colour, changes=changes, begins=begins):
            times, values, value = [0.0], [begins], begins
            for change in changes:
                value = 1 - value
                times, values = [*times, change], [*values, value]
            axes.plot([x(0), x(100)], [bottom, bottom], color="#d8d8d8", linewidth=0.8, zorder=0)
            axes.step(
                [x(time) for time in (*times, 100.0)], [bottom + high * value for value in (*values, value)],
                where="post", color=colour, linewidth=1.6,
            )  # fmt: skip
        case Said(colour=colour, at=said):
            axes.plot([x(0), x(100)], [bottom, bottom], color="#d8d8d8", linewidth=0.8, zorder=0)
            for time, words in said:
                axes.plot([x(time)] * 2, [bottom, bottom + high], color=colour, linewidth=2.2)
                axes.text(x(time) + 0.006, bottom + high / 2, words, va="center", size=8, bbox=white, zorder=1)
        case Held(colour=colour, spans=spans):
            axes.plot([x(0), x(100)], [bottom + high / 2] * 2, color="#d8d8d8", linewidth=0.8, zorder=0)
            for begin, end, words in spans:
                axes.fill(
                    [x(begin), x(end), x(end), x(begin)], [bottom, bottom, bottom + high, bottom + high],
                    facecolor="white", edgecolor=colour, linewidth=1.3,
                )  # fmt: skip
                axes.text((x(begin) + x(end)) / 2, bottom + high / 2 - 0.005, words, ha="center", va="center", size=8)


if __name__ == "__main__":
    for name, panels in DIAGRAMS.items():
        draw(panels, DEPLOY / name)
        print(DEPLOY / name)
    sys.exit(0)
