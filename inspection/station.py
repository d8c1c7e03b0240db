"""One station: every trigger gets exactly one record and one answer.  Reads like design in words:

trigger -> frame -> quality gate -> registration -> detector -> judge -> record committed -> controller answered.

What fails, and what then happens:

* the part (camera, registration, inference, deadline): verdict ERROR with its reason, recorded and answered; next part.
* the store: the part is answered ERROR and the state is Error.  Nothing is accepted until the store takes writes again;
  then the part gets its ERROR record, and the state is Ready.
* the controller cannot be served any more, or anything unforeseen: the state is Error and ``run`` raises
  ControllerError.  The program ends with exit code 3 and its service starts it again; what was recorded by then is
  answered from its record, and a part without one gets the ERROR record ``station.restarted``.
"""

import hashlib
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import monotonic

from inspection.cameras import Camera, make_camera
from inspection.config import StationConfig
from inspection.controllers import CONTROLLERS, Controller, StationState
from inspection.errors import ConfigError, ControllerError, InspectionError, StoreError
from inspection.evidence import EvidenceWriter
from inspection.inspect_frame import error_verdict
from inspection.log import event
from inspection.plugins import resolve
from inspection.recipe import LoadedRecipe, open_recipe, run_selftest, verify
from inspection.store import Store, same_part
from inspection.types import Detection, Frame, Judgement, Record, Trigger, Verdict, error_judgement, utc_now

WAIT_MS = 200
RETRY_MS = 1000
STAND_INS = frozenset({"folder", "simulated"})  # devices whose records never count as production


class Station:
    """Owns the devices of one machine.  One thread calls it: ``open``, then ``run`` until told to stop, then ``close``."""

    def __init__(self, config: StationConfig) -> None:
        self.config = config
        self.recipe = prepare_recipe(config)
        role = self.recipe.recipe.camera
        camera, evidence = config.cameras[role], config.evidence
        self.camera: Camera = make_camera(camera, role)
        self.controller: Controller = resolve(CONTROLLERS, config.controller.kind, "controller")(config.controller)
        self.simulated = not STAND_INS.isdisjoint({camera.kind, config.controller.kind})
        self.store = Store(Path(config.store))
        self.evidence = EvidenceWriter(
            Path(evidence.folder), queue_size=evidence.queue, min_free_mb=evidence.min_free_mb
        )
        self.healthy = True
        self._owed: list[Trigger] = []  # answered ERROR while the store failed, and not recorded yet

    def open(self) -> None:
        """Record what a crash left open, open the devices, replay the self-test, report Ready."""
        self.store.claim()
        self._settle("station.restarted", "the station stopped while this part was inspected; inspect it again")
        self.camera.open()
        self.controller.set_recipe(self.recipe.recipe.recipe_id, self.recipe.model.card.classes)
        self.controller.open()
        self.recipe.warm_up()
        tests = run_selftest(self.recipe)
        self.controller.set_state(StationState.READY)
        event("station.ready", recipe=self.recipe.recipe.recipe_id, selftests=tests, records=self.store.count())

    def close(self) -> None:
        """Stop serving and free every device, whichever of them fails; evidence that still waits is written."""
        with ExitStack() as last_to_first:
            for device in (self.store, self.evidence, self.camera, self.controller):
                last_to_first.callback(device.close)

    def run(self, stop: Callable[[], bool]) -> None:
        """Answer triggers until ``stop()`` is true, and the part that was accepted by then; see above for what fails."""
        try:
            while not stop():
                self._turn()
            self.controller.set_state(StationState.HALTED)
            trigger = self.controller.wait(0)
            if isinstance(trigger, Trigger):
                self._serve(trigger)
            if not self.healthy:
                self._recover()
            event("station.halted", owed=[trigger.trigger_id for trigger in self._owed])
        except ControllerError:
            self.controller.set_state(StationState.ERROR)
            raise
        except Exception as error:  # nothing is known any more: stop in state Error
            event("station.failed", level=logging.CRITICAL, error=error)
            self.controller.set_state(StationState.ERROR)
            raise ControllerError(
                f"the station stopped serving its controller: unforeseen {type(error).__name__}: {error}",
                fix="start it again, and report the traceback in the log; the part in progress gets an ERROR record",
            ) from error

    def _turn(self) -> None:
        trigger = self.controller.wait(WAIT_MS if self.healthy else RETRY_MS)
        if isinstance(trigger, Trigger):
            self.controller.set_state(StationState.SINGLE_EXECUTION)
            self._serve(trigger)
        elif not self.healthy:
            self._recover()
        if self.healthy:
            self.controller.set_state(StationState.READY)

    def _serve(self, presented: Trigger) -> None:
        began, word = monotonic(), "part.judged"
        try:
            trigger, record = self._known(presented)
            if record is not None:
                word = "part.asked_again"
            else:
                self.store.accept(trigger)
                record = self._inspect(trigger, began) if trigger == presented else self._reused(trigger)
                self.store.commit(record)
        except StoreError as error:
            # What cannot be recorded cannot be passed: the controller hears ERROR and the station leaves Ready.
            event("store.failed", level=logging.ERROR, what=error.what, fix=error.fix)
            self.healthy = False
            self._owed.append(presented)
            self.controller.set_state(StationState.ERROR)
            record = self._record(presented, error_verdict(error))
        self.controller.answer(record)
        event(
            word, trigger_id=record.trigger.trigger_id, serial=presented.serial, verdict=record.judgement.verdict.name,
            reasons=[reason.rule_id for reason in record.judgement.reasons], ms=dict(record.stage_ms),
        )  # fmt: skip

    def _known(self, presented: Trigger) -> tuple[Trigger, Record | None]:
        """The trigger under the name it is recorded by, and its record where it has one.

        A trigger number that an earlier part had gets a name of its own, made of the part's names, so that it is
        never answered from that other part, and has one record however often it is presented.
        """
        known = self.store.find_by_trigger(presented.trigger_id)
        if known is None or same_part(known.trigger, presented):
            return presented, known
        names = "\0".join((presented.serial, presented.lot, presented.recipe_id))
        digest = hashlib.sha256(names.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        renamed = replace(presented, trigger_id=f"{presented.trigger_id}#{digest}")
        return renamed, self.store.find_by_trigger(renamed.trigger_id)

    def _reused(self, trigger: Trigger) -> Record:
        text = f"sequence {trigger.sequence} was already used for another part: the controller must count up"
        return self._record(trigger, error_judgement("trigger.reused", text))

    def _inspect(self, trigger: Trigger, began: float) -> Record:
        deadline_ms, wanted = self.recipe.recipe.deadline_ms, self.recipe.recipe.recipe_id
        if trigger.recipe_id not in ("", wanted):
            text = f"recipe {trigger.recipe_id!r} was asked for, {wanted!r} is in force"
            return self._record(trigger, error_judgement("recipe.mismatch", text))
        frame: Frame | None = None
        detections: tuple[Detection, ...] = ()
        stages: tuple[tuple[str, float], ...] = ()
        try:
            frame = self.camera.grab(trigger, deadline_ms)
            grabbed = ("grab", 1000 * (monotonic() - began))
            seen = self.recipe.inspect({self.recipe.recipe.camera: frame})
            judgement, detections, stages = seen.judgement, seen.detections, (grabbed, *seen.stage_ms)
        except InspectionError as error:
            judgement = error_verdict(error)
        spent_ms = 1000 * (monotonic() - began)
        if spent_ms > deadline_ms and judgement.verdict != Verdict.ERROR:
            text = f"judged after {spent_ms:.0f} ms, the deadline is {deadline_ms} ms"
            judgement = error_judgement("station.deadline", text)
        record = replace(
            self._record(trigger, judgement, frame=frame),
            detections=detections,
            stage_ms=(*stages, ("total", spent_ms)),
        )
        return self._with_evidence(record, frame)

    def _record(self, trigger: Trigger, judgement: Judgement, *, frame: Frame | None = None) -> Record:
        return Record(
            trigger=trigger,
            judgement=judgement,
            detections=(),
            frame_ids=(frame.frame_id,) if frame else (),
            recipe_sha256=self.recipe.sha256,
            model_sha256=self.recipe.model.sha256,
            station_id=self.config.station_id,
            stage_ms=(),
            simulated=self.simulated or (frame is not None and frame.simulated),
            judged_at=utc_now(),
        )

    def _with_evidence(self, record: Record, frame: Frame | None) -> Record:
        if frame is None or (self.config.evidence.keep == "not-ok" and record.judgement.verdict == Verdict.OK):
            return record
        images = [("frame", frame.image)]
        return replace(record, evidence=self.evidence.offer(record.record_id, record.trigger.lot, images))

    def _recover(self) -> None:
        """Back to health as soon as the store takes writes again and has a record of every part that was answered."""
        try:
            self.store.probe()
            while self._owed:
                self.store.accept(self._known(self._owed[0])[0])
                del self._owed[0]
            self._settle("store.failed", "the record of this part could not be stored at the time")
        except StoreError:
            return
        self.healthy = True
        event("store.recovered", records=self.store.count())

    def _settle(self, rule_id: str, text: str) -> None:
        """Record ERROR for each part that was accepted and has no record."""
        for trigger in self.store.unanswered():
            self.store.commit(self._record(trigger, error_judgement(rule_id, text)))
            event("part.interrupted", trigger_id=trigger.trigger_id, serial=trigger.serial, rule=rule_id)


def prepare_recipe(config: StationConfig) -> LoadedRecipe:
    """Verify and load the recipe and see that this station has the camera it asks for; ConfigError otherwise."""
    folder = Path(config.recipe)
    verify(folder)
    loaded = open_recipe(folder, threads=config.threads, provider=config.provider)
    if loaded.recipe.camera not in config.cameras:
        raise ConfigError(
            f"recipe {loaded.recipe.recipe_id} looks through camera {loaded.recipe.camera!r}; "
            f"station {config.station_id} has {', '.join(sorted(config.cameras))}",
            fix="name the camera so in the station config, or choose another recipe",
        )
    return loaded
