"""Takes the frames of a part from all its cameras and judges them, in a thread of its own.

The station's thread meanwhile watches the deadline: whatever a camera, a driver or the detector does, the controller is
answered in time.  Between parts the thread keeps the detector warm, because an idle processor forgets: caches are
empty, cores sleep, and the first inference after a pause takes several times as long.
"""

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import monotonic

from inspection.cameras import Camera
from inspection.errors import InspectionError
from inspection.inspect_frame import Inspection, error_verdict
from inspection.log import event
from inspection.recipe import LoadedRecipe
from inspection.serials import resolve_serial
from inspection.types import Frame, Judgement, Reason, Trigger, Verdict, error_judgement


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What became of a part: its frames by role, what was seen, and the serial that was read from it."""

    frames: Mapping[str, Frame]
    seen: Inspection
    read_serial: str
    spent_ms: float


@dataclass(slots=True, eq=False)
class Job:
    """A part in the inspector's hands.  ``acquired`` is set when every camera has its frame, ``outcome`` when it is judged;
    ``missed`` by the station's thread, when it answers without the outcome.
    """

    trigger: Trigger
    recipe: LoadedRecipe
    began_s: float
    news: "SimpleQueue[None]" = field(default_factory=SimpleQueue)
    acquired: bool = False
    outcome: Outcome | None = None
    missed: bool = False

    def left_s(self) -> float:
        """Time to the recipe's deadline, seconds; negative when it has passed."""
        return self.began_s + self.recipe.deadline_ms / 1000 - monotonic()

    def wait(self, timeout_s: float) -> None:
        """Until something new happened, at most ``timeout_s``."""
        try:
            self.news.get(timeout=max(0.0, timeout_s))
        except Empty:
            return


class Inspector:
    """One part at a time.  ``start`` by the station's thread; the cameras are used by the inspector's threads alone."""

    def __init__(self, cameras: Mapping[str, Camera], *, keep_warm_ms: int) -> None:
        self._cameras = cameras
        self._keep_warm_s = keep_warm_ms / 1000
        self._grabbers = {role: ThreadPoolExecutor(1, thread_name_prefix=f"grab-{role}") for role in cameras}
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._idle = Event()
        self._idle.set()
        self._recipe: LoadedRecipe | None = None
        self.warmed = 0
        self._thread = Thread(target=self._run, name="inspector", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a part is still in work, be it one that missed its deadline."""
        return not self._idle.is_set()

    def use(self, recipe: LoadedRecipe) -> None:
        """Keep this recipe's detector warm between parts."""
        self._recipe = recipe

    def start(self, trigger: Trigger, recipe: LoadedRecipe, began_s: float) -> Job:
        """Begin with a part; must not be called while ``busy``."""
        job = Job(trigger, recipe, began_s)
        self._idle.clear()
        self._jobs.put(job)
        self._interrupt_warming()
        return job

    def close(self, timeout_s: float = 5.0) -> None:
        """End the threads; a part in work has ``timeout_s`` to finish.  A second call does nothing."""
        if self._thread.is_alive():
            self._interrupt_warming()
            self._jobs.put(None)
            self._thread.join(timeout_s)
        for grabber in self._grabbers.values():
            grabber.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=self._keep_warm_s or None)
            except Empty:
                self._warm()
                continue
            if job is None:
                return
            job.outcome = self._outcome(job)
            self._idle.set()
            job.news.put(None)

    def _warm(self) -> None:
        recipe = self._recipe
        if recipe is not None and self._jobs.empty():
            recipe.keep_warm()
            self.warmed += 1

    def _interrupt_warming(self) -> None:
        recipe = self._recipe
        if recipe is not None:
            recipe.interrupt_warming()

    def _outcome(self, job: Job) -> Outcome:
        frames: dict[str, Frame] = {}
        read = ""
        try:
            frames.update(self._frames(job))
            grabbed_ms = 1000 * (monotonic() - job.began_s)
            job.acquired = True
            job.news.put(None)
            seen = job.recipe.inspect(frames)
            began_s = monotonic()
            read, reason, verdict = self._serial(job, frames)
            stages = (("grab", grabbed_ms), *seen.stage_ms)
            if job.recipe.recipe.serial.source != "controller":
                stages = (*stages, ("serial", 1000 * (monotonic() - began_s)))
            seen = replace(seen, judgement=with_reason(seen.judgement, reason, verdict), stage_ms=stages)
        except InspectionError as error:
            seen = Inspection(error_verdict(error), (), ())
        except Exception as error:  # whatever goes wrong with a part is that part's ERROR
            text = f"unforeseen {type(error).__name__}: {error}; report the traceback in the log"
            seen = Inspection(error_judgement("station.failed", text), (), ())
            event("part.unforeseen", level=logging.ERROR, error=error)
        return Outcome(frames, seen, read, 1000 * (monotonic() - job.began_s))

    def _frames(self, job: Job) -> dict[str, Frame]:
        """One frame of each camera, all exposed at the same time; the first error, after all have come to an end."""
        # A frame that comes in the last moment leaves no time to judge it, and "no frame" says more than "too late".
        left_ms = max(1, int(1000 * job.left_s() - min(100.0, job.recipe.deadline_ms / 10)))
        roles = job.recipe.cameras
        if len(roles) == 1:
            return {roles[0]: self._cameras[roles[0]].grab(job.trigger, left_ms)}
        waiting = {role: self._grabbers[role].submit(self._cameras[role].grab, job.trigger, left_ms) for role in roles}
        errors = [error for error in (future.exception() for future in waiting.values()) if error is not None]
        if errors:
            raise errors[0]
        return {role: future.result() for role, future in waiting.items()}

    @staticmethod
    def _serial(job: Job, frames: Mapping[str, Frame]) -> tuple[str, Reason | None, Verdict | None]:
        section = job.recipe.recipe.serial
        role = section.camera or job.recipe.cameras[0]
        return resolve_serial(section, job.trigger.serial, frames[role].image)


def with_reason(judgement: Judgement, reason: Reason | None, verdict: Verdict | None) -> Judgement:
    """The judgement after a further finding about the part: NG before ERROR before REVIEW before OK."""
    if reason is None or verdict is None:
        return judgement
    ranks = (Verdict.OK, Verdict.REVIEW, Verdict.ERROR, Verdict.NG)
    if ranks.index(verdict) > ranks.index(judgement.verdict):
        return Judgement(verdict, (reason, *judgement.reasons))
    return Judgement(judgement.verdict, (*judgement.reasons, reason))
