"""One station: every trigger gets exactly one record and one answer.  Reads like design in words:

trigger -> frame -> quality gate -> registration -> detector -> judge -> record committed -> controller answered.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic

from inspection.cameras import CAMERAS, Camera
from inspection.config import StationConfig
from inspection.controllers import CONTROLLERS, Controller, StationState
from inspection.errors import ConfigError, InspectionError, StoreError
from inspection.evidence import EvidenceWriter
from inspection.inspect_frame import error_verdict
from inspection.log import event
from inspection.plugins import resolve
from inspection.recipe import LoadedRecipe, open_recipe, run_selftest, verify
from inspection.store import Store
from inspection.types import Frame, Judgement, Record, Trigger, Verdict, error_judgement, new_id, utc_now

WAIT_MS = 200
RETRY_MS = 1000


class Station:
    """Owns the devices of one machine.  One thread calls it: ``open``, then ``run`` until told to stop, then ``close``."""

    def __init__(self, config: StationConfig) -> None:
        self.config = config
        self.recipe = prepare_recipe(config)
        self.store = Store(Path(config.store))
        evidence = config.evidence
        self.evidence = EvidenceWriter(
            Path(evidence.folder), queue_size=evidence.queue, min_free_mb=evidence.min_free_mb
        )
        role = self.recipe.recipe.camera
        self.camera: Camera = resolve(CAMERAS, config.cameras[role].kind, "camera")(
            config.cameras[role], camera_id=role
        )
        self.controller: Controller = resolve(CONTROLLERS, config.controller.kind, "controller")(config.controller)
        self.healthy = True

    def open(self) -> None:
        """Close what a crash left open, replay the self-test, open the devices, report Ready."""
        for trigger in self.store.unanswered():
            text = "the station stopped while this part was inspected; inspect it again"
            self.store.commit(self._record(trigger, error_judgement("station.restarted", text)))
            event("part.interrupted", trigger_id=trigger.trigger_id, serial=trigger.serial)
        tests = run_selftest(self.recipe)
        self.camera.open()
        self.controller.set_classes(self.recipe.model.card.classes)
        self.controller.open()
        self.controller.set_state(StationState.READY)
        event("station.ready", recipe=self.recipe.recipe.recipe_id, selftests=tests, records=self.store.count())

    def close(self) -> None:
        """Stop serving; evidence that still waits is written."""
        self.controller.set_state(StationState.HALTED)
        self.controller.close()
        self.camera.close()
        self.evidence.close()
        self.store.close()

    def run(self, stop: Callable[[], bool]) -> None:
        """Answer triggers until ``stop()`` is true."""
        while not stop():
            trigger = self.controller.wait(WAIT_MS if self.healthy else RETRY_MS)
            if trigger is not None:
                self.controller.set_state(StationState.SINGLE_EXECUTION)
                self._serve(trigger)
            elif not self.healthy:
                self._recover()
            if self.healthy:
                self.controller.set_state(StationState.READY)

    def _serve(self, trigger: Trigger) -> None:
        try:
            known = self.store.find_by_trigger(trigger.trigger_id)
            if known is not None and _same_part(known.trigger, trigger):
                event("part.asked_again", trigger_id=trigger.trigger_id)
                self.controller.answer(known)
                return
            if known is None:
                self.store.accept(trigger)
                record = self._inspect(trigger)
            else:
                record = self._reused(trigger)
            self.store.commit(record)
        except StoreError as error:
            # What cannot be recorded cannot be passed: the controller hears ERROR and the station leaves Ready.
            event("store.failed", level=logging.ERROR, what=error.what, fix=error.fix)
            self.healthy = False
            self.controller.set_state(StationState.ERROR)
            record = self._record(trigger, error_verdict(error))
        self.controller.answer(record)
        event(
            "part.judged", trigger_id=trigger.trigger_id, serial=trigger.serial, verdict=record.judgement.verdict.name,
            reasons=[reason.rule_id for reason in record.judgement.reasons], ms=dict(record.stage_ms),
        )  # fmt: skip

    def _inspect(self, trigger: Trigger) -> Record:
        began = monotonic()
        deadline_ms, wanted = self.recipe.recipe.deadline_ms, self.recipe.recipe.recipe_id
        if trigger.recipe_id not in ("", wanted):
            text = f"recipe {trigger.recipe_id!r} was asked for, {wanted!r} is in force"
            return self._record(trigger, error_judgement("recipe.mismatch", text))
        frame = None
        try:
            frame = self.camera.grab(trigger, deadline_ms)
            grabbed_ms = 1000 * (monotonic() - began)
            seen = self.recipe.inspect(frame.image, frame.golden)
        except InspectionError as error:
            return self._with_evidence(self._record(trigger, error_verdict(error), frame=frame), frame)
        judgement, spent_ms = seen.judgement, 1000 * (monotonic() - began)
        if spent_ms > deadline_ms:
            judgement = error_judgement(
                "station.deadline", f"judged after {spent_ms:.0f} ms, the deadline is {deadline_ms} ms"
            )
        stages = (("grab", grabbed_ms), *seen.stage_ms, ("total", spent_ms))
        record = replace(self._record(trigger, judgement, frame=frame), detections=seen.detections, stage_ms=stages)
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
            simulated=frame.simulated if frame else False,
            judged_at=utc_now(),
        )

    def _with_evidence(self, record: Record, frame: Frame | None) -> Record:
        if frame is None or (self.config.evidence.keep == "not-ok" and record.judgement.verdict == Verdict.OK):
            return record
        images = [("frame", frame.image)]
        return replace(record, evidence=self.evidence.offer(record.record_id, record.trigger.lot, images))

    def _reused(self, trigger: Trigger) -> Record:
        """A trigger number that an earlier part had: recorded under a name of its own, never answered from that part."""
        renamed = replace(trigger, trigger_id=f"{trigger.trigger_id}#{new_id()}")
        self.store.accept(renamed)
        text = f"sequence {trigger.sequence} was already used for another part: the controller must count up"
        return self._record(renamed, error_judgement("trigger.reused", text))

    def _recover(self) -> None:
        """Back to Ready as soon as the store takes writes again."""
        try:
            self.store.probe()
            for trigger in self.store.unanswered():
                text = "the record of this part could not be stored at the time"
                self.store.commit(self._record(trigger, error_judgement("store.failed", text)))
        except StoreError:
            return
        self.healthy = True
        event("store.recovered")


def _same_part(one: Trigger, other: Trigger) -> bool:
    return (one.serial, one.lot, one.recipe_id) == (other.serial, other.lot, other.recipe_id)


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
