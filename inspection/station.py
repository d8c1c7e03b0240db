"""One station: every trigger gets exactly one record and one answer.  Reads like design in words:

trigger -> frames -> quality gate -> registration -> detector -> judge -> record committed -> controller answered.

What fails, and what then happens:

* the part (camera, registration, inference): verdict ERROR with its reason, recorded and answered; next part.
* the deadline: the controller hears ERROR when it passes, not when the result is there; the true result is appended to
  the record as ``late``, and only then is the next part accepted.
* a camera is away: state Error until it is back by itself.
* a recipe that a part asks for fails its lock, schema or self-test: the part is ERROR, and the recipe in force stays, or
  the station holds in state Initialized until a good one was prepared (``refused_recipe`` in the config).
* a new version of a recipe on the disk, or one that a person asks for, fails them: the recipe in force stays, and the
  status beside the store (``station_link``) says why.
* the store: the part is answered ERROR and the state is Error.  Nothing is accepted until the store takes writes again;
  then the part gets its ERROR record, and the state is Ready.
* the controller cannot be served any more, a part is stuck in a driver or the detector, or anything unforeseen: the
  state is Error and ``run`` raises ControllerError.  The program ends with exit code 3 and its service starts it again;
  what was recorded by then is answered from its record, and a part without one gets the ERROR record
  ``station.restarted``.

Durations are measured on the monotonic clock: the system clock may jump, it only dates records.
"""

import hashlib
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

from inspection.cameras import STAND_INS, Camera, make_camera
from inspection.config import StationConfig
from inspection.controllers import CONTROLLERS, Controller, StationState
from inspection.errors import ControllerError, StoreError
from inspection.evidence import EvidenceWriter, Image, is_sampled
from inspection.inspect_frame import error_verdict
from inspection.inspector import Inspector, Job, Outcome, with_reason
from inspection.judged_on import judged_on
from inspection.log import event
from inspection.metrics import Metrics
from inspection.notary import Notary
from inspection.outbox import Outbox, PublisherStatus
from inspection.plugins import resolve
from inspection.recipe import LoadedRecipe
from inspection.recipe_config import GOLDEN, RAW
from inspection.service import Service
from inspection.shelf import Refusal, Shelf
from inspection.station_desk import Desk, Facts
from inspection.store import Store, same_part
from inspection.types import (
    Judgement,
    LateResult,
    PrepareRecipe,
    Reason,
    Record,
    Trigger,
    Verdict,
    error_judgement,
    utc_now,
)

WAIT_MS = 200
RETRY_MS = 1000
STUCK_S = 10.0  # a part that is this much later than its deadline will not come any more
LOOK_S = 1.0  # how often cameras, publishers and evidence are looked at for the metrics
DEVICE_STAND_INS = STAND_INS  # records made with one of these never count as production


class Station:
    """Owns the devices of one machine.  One thread calls it: ``open``, then ``run`` until told to stop, then ``close``."""

    def __init__(self, config: StationConfig) -> None:
        self.config = config
        self.shelf = Shelf(config)
        self.recipe = self.shelf.first
        self._judged_on = judged_on(self.recipe)
        evidence = config.evidence
        self.cameras: dict[str, Camera] = {role: make_camera(camera, role) for role, camera in config.cameras.items()}
        self.controller: Controller = resolve(CONTROLLERS, config.controller.kind, "controller")(config.controller)
        kinds = {config.controller.kind, *(camera.kind for camera in config.cameras.values())}
        self.simulated = not DEVICE_STAND_INS.isdisjoint(kinds)
        self.notary = Notary(config)
        self.store = Store(Path(config.store), outbox=bool(config.publishers))
        self.outbox = Outbox(
            Path(config.store), config.publishers, station_id=config.station_id, limit=config.outbox_limit
        )
        self.evidence = EvidenceWriter(
            Path(evidence.folder), queue_size=evidence.queue, min_free_mb=evidence.min_free_mb, store=Path(config.store)
        )
        self.inspector = Inspector(self.cameras, keep_warm_ms=config.keep_warm_ms)
        self.metrics = Metrics(config.station_id)
        self.service = Service()
        self.desk = Desk(config)
        self.healthy = True
        self._holding = ""  # why no recipe is in force
        self._owed: list[Trigger] = []  # answered ERROR while the store failed, and not recorded yet
        self._late: tuple[Job, Record] | None = None  # a part that missed its deadline, and its record
        self._asked: set[str] = set()  # recipes the controller asked to be prepared
        self._recipes: tuple[str, ...] = ()
        self._publishers: dict[str, PublisherStatus] = {}
        self._controller_fault = self._signed_by = ""
        self.state = StationState.PREOPERATIONAL
        self._looked_s = 0.0
        self._faults: dict[str, str] = dict.fromkeys(self.cameras, "")

    def open(self) -> None:
        """Record what a crash left open, open the devices, report Ready."""
        self.store.claim()
        self._settle("station.restarted", "the station stopped while this part was inspected; inspect it again")
        for camera in self.cameras.values():
            camera.open()
        if self.config.metrics_port:
            self.metrics.serve(self.config.metrics_port)
        self.outbox.open()
        self._put_in_force(self.recipe)
        self._recipes = self.shelf.known
        self.controller.set_recipes(self._recipes)
        self.controller.open()
        self.shelf.watch()
        self.notary.open()
        self.desk.open()
        self._show_state()
        self.service.ready(f"recipe {self.recipe.recipe_id}")
        model = next(iter(self.recipe.views.values())).model
        event(
            "station.ready", recipe=self.recipe.recipe_id, state=self.state.name, records=self.store.count(),
            provider=model.provider, threads=model.threads, cameras=list(self.recipe.cameras),
        )  # fmt: skip

    def close(self) -> None:
        """Stop serving and free every device, whichever of them fails; evidence that still waits is written.

        The last status says HALTED, or ERROR where that ended it.
        """
        with ExitStack() as last_to_first:
            last_to_first.callback(self._close_desk)
            # The notary reads the ledger once more: with the writer's connection open it leaves no files behind.
            for device in (self.service, self.metrics, self.store, self.evidence, self.notary, self.shelf, self.outbox):
                last_to_first.callback(device.close)
            last_to_first.callback(self.evidence.finish)
            for camera in self.cameras.values():
                last_to_first.callback(camera.close)
            last_to_first.callback(self.inspector.close)
            last_to_first.callback(self.controller.close)

    def run(self, stop: Callable[[], bool]) -> None:
        """Answer triggers until ``stop()`` is true, and the part that was accepted by then; see above for what fails."""
        try:
            while not stop():
                self._turn()
            self._stop()
        except ControllerError as error:
            self._controller_fault = error.what
            self._set_state(StationState.ERROR)
            raise
        except Exception as error:  # nothing is known any more: stop in state Error
            event("station.failed", level=logging.CRITICAL, error=error)
            self._set_state(StationState.ERROR)
            raise ControllerError(
                f"the station stopped serving its controller: unforeseen {type(error).__name__}: {error}",
                fix="start it again, and report the traceback in the log; the part in progress gets an ERROR record",
            ) from error

    def _turn(self) -> None:
        self.service.alive()
        order = self.controller.wait(WAIT_MS if self.healthy else RETRY_MS)
        if isinstance(order, Trigger):
            self._set_state(StationState.SINGLE_EXECUTION)
            self._serve(order)
        elif isinstance(order, PrepareRecipe):
            self._asked.add(order.recipe_id)
            self.shelf.prepare(order.recipe_id)
        elif not self.healthy:
            self._recover()
        self._finish_late()
        self._take_recipes()
        self._look()
        self._show_state()

    def _stop(self) -> None:
        """Answer the part that was accepted, and bring in the true result of one that is late."""
        self.service.stopping()
        self._set_state(StationState.HALTED)
        trigger = self.controller.wait(0)
        if isinstance(trigger, Trigger):
            self._serve(trigger)
        while self._late is not None:
            self._finish_late()
            sleep(0.01)
        if not self.healthy:
            self._recover()
        event("station.halted", owed=[trigger.trigger_id for trigger in self._owed])

    # ---- one part

    def _serve(self, presented: Trigger) -> None:
        began, word = monotonic(), "part.judged"
        job: Job | None = None
        try:
            trigger, record = self._known(presented)
            if record is not None:
                word = "part.asked_again"
                self.metrics.repeated()
            else:
                refusal = self._reused(trigger) if trigger != presented else self._change_over(trigger)
                if refusal is not None:
                    self.store.accept(trigger)
                    record = self._record(trigger, refusal)
                else:
                    self._wait_for_inspector()
                    job = self.inspector.start(trigger, self.recipe, began)
                    self.store.accept(trigger)  # journaled while the cameras expose
                    record = self._answer_for(job)
                self.store.commit(record)
                if job is not None and job.missed:
                    self._late = (job, record)
        except StoreError as error:
            # What cannot be recorded cannot be passed: the controller hears ERROR and the station leaves Ready.
            event("store.failed", level=logging.ERROR, what=error.what, fix=error.fix)
            self.healthy = False
            self._owed.append(presented)
            self._set_state(StationState.ERROR)
            record = self._record(presented, error_verdict(error))
        self.controller.answer(record)
        self.outbox.notify()
        if word == "part.judged":
            self.metrics.answered(record, monotonic() - began)
        event(
            word, trigger_id=record.trigger.trigger_id, serial=record.serial, verdict=record.judgement.verdict.name,
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

    @staticmethod
    def _reused(trigger: Trigger) -> Judgement:
        text = f"sequence {trigger.sequence} was already used for another part: the controller must count up"
        return error_judgement("trigger.reused", text)

    def _answer_for(self, job: Job) -> Record:
        """The record of a part in work: its result, or ERROR when the deadline passes first."""
        told = False
        while job.outcome is None and (left_s := job.left_s()) > 0:
            job.wait(min(left_s, WAIT_MS / 1000))
            if job.acquired and not told:
                told = True
                self.controller.acquired(job.trigger)
            self.service.alive()
        outcome = job.outcome
        if outcome is None:
            job.missed = True
            text = f"no result within the deadline of {job.recipe.deadline_ms} ms"
            spent_ms = job.recipe.deadline_ms - 1000 * job.left_s()
            record = self._record(job.trigger, error_judgement("station.deadline", text))
            return replace(record, stage_ms=(("total", spent_ms),))
        judgement = outcome.seen.judgement
        if outcome.spent_ms > job.recipe.deadline_ms and judgement.verdict != Verdict.ERROR:
            text = f"judged after {outcome.spent_ms:.0f} ms, the deadline is {job.recipe.deadline_ms} ms"
            record = self._record(job.trigger, error_judgement("station.deadline", text), outcome=outcome)
            return replace(record, late=self._late_result(job.recipe, outcome, record))
        judgement = self._without_repeat(job, outcome)
        return self._with_evidence(job.recipe, self._record(job.trigger, judgement, outcome=outcome), outcome)

    def _without_repeat(self, job: Job, outcome: Outcome) -> Judgement:
        """ERROR for a serial that was judged before, where the recipe forbids that."""
        judgement, serial = outcome.seen.judgement, outcome.read_serial or job.trigger.serial
        if job.recipe.recipe.serial.repeated == "accept" or not serial:
            return judgement
        earlier = self.store.judged(serial, job.trigger.lot)
        if earlier is None:
            return judgement
        text = f"serial {serial!r} was judged {earlier.judgement.verdict.name} on {earlier.judged_at:%Y-%m-%d %H:%M}"
        return with_reason(judgement, Reason("serial.repeated", text), Verdict.ERROR)

    def _finish_late(self) -> None:
        """Append the true result of the part that missed its deadline, once it is there."""
        if self._late is None:
            return
        job, record = self._late
        if job.outcome is None:
            if job.left_s() < -STUCK_S:
                raise _stuck(f"part {job.trigger.trigger_id}")
            return
        self._late = None
        self.metrics.late()
        try:
            self.store.commit_late(record.record_id, self._late_result(job.recipe, job.outcome, record))
        except StoreError as error:
            event("store.failed", level=logging.ERROR, what=error.what, fix=error.fix, late_result_of=record.record_id)
            self.healthy = False
        verdict = job.outcome.seen.judgement.verdict.name
        event(
            "part.late",
            level=logging.WARNING,
            record_id=record.record_id,
            true_verdict=verdict,
            ms=job.outcome.spent_ms,
        )

    def _wait_for_inspector(self) -> None:
        """Until the part before, which was answered without its result, is out of the inspector's hands."""
        until_s = monotonic() + self.recipe.deadline_ms / 1000 + STUCK_S
        while self.inspector.busy:
            self._finish_late()
            if monotonic() > until_s:
                raise _stuck("the part before")
            sleep(0.001)
        self._finish_late()  # it may have come to its end since it was looked at last

    def _record(self, trigger: Trigger, judgement: Judgement, *, outcome: Outcome | None = None) -> Record:
        frames = outcome.frames if outcome else {}
        stages = (*outcome.seen.stage_ms, ("total", outcome.spent_ms)) if outcome else ()
        return Record(
            trigger=trigger,
            judgement=judgement,
            detections=outcome.seen.detections if outcome else (),
            frame_ids=tuple(frame.frame_id for frame in frames.values()),
            recipe_sha256=self.recipe.sha256,
            model_sha256=self.recipe.model_sha256,
            station_id=self.config.station_id,
            stage_ms=stages,
            simulated=self.simulated or any(frame.simulated for frame in frames.values()),
            judged_at=utc_now(),
            recipe_id=self.recipe.recipe_id,
            read_serial=outcome.read_serial if outcome else "",
            measured=outcome.seen.measured if outcome else (),
            judged_on=self._judged_on,
        )

    def _with_evidence(self, recipe: LoadedRecipe, record: Record, outcome: Outcome) -> Record:
        if not outcome.frames:
            return record
        if record.judgement.verdict == Verdict.OK and not self._is_kept(record):
            return record
        images: list[tuple[str, Image]] = [(role, frame.image) for role, frame in outcome.frames.items()]
        images += [(f"{role}{RAW}", frame.raw) for role, frame in outcome.frames.items() if frame.raw is not None]
        images += [(f"{role}{GOLDEN}", golden) for role, golden in recipe.brought_goldens(outcome.frames).items()]
        verdict = record.judgement.verdict.name
        text = self.evidence.offer(record.record_id, record.trigger.lot, images, verdict=verdict)
        return replace(record, evidence=text)

    def _is_kept(self, record: Record) -> bool:
        """Whether an OK part leaves a picture."""
        keep = self.config.evidence.keep
        drawn = keep == "not-ok-and-sample" and is_sampled(record.record_id, self.config.hmi.review_ok_share)
        return keep == "all" or drawn

    def _late_result(self, recipe: LoadedRecipe, outcome: Outcome, record: Record) -> LateResult:
        seen, kept = outcome.seen, self._with_evidence(recipe, record, outcome)
        frames = tuple(frame.frame_id for frame in outcome.frames.values())
        stages = (*seen.stage_ms, ("total", outcome.spent_ms))
        return LateResult(seen.judgement, seen.detections, stages, utc_now(), frames, kept.evidence)

    # ---- recipes

    def _change_over(self, trigger: Trigger) -> Judgement | None:
        """Put the recipe that the part asks for in force; the ERROR judgement when that cannot be."""
        wanted = trigger.recipe_id
        if self._holding and wanted in ("", self.recipe.recipe_id):
            return error_judgement("recipe.refused", f"no recipe is in force: {self._holding}")
        if wanted == "" and not self._holding:
            return None
        try:
            loaded = self.shelf.take(wanted)
        except Refusal as refusal:
            self.desk.refuse(wanted, refusal.reason)
            if self.config.refused_recipe == "hold":
                self._holding = refusal.reason.text
            return Judgement(Verdict.ERROR, (refusal.reason,))
        if loaded is not self.recipe or self._holding:
            self._put_in_force(loaded)
        return None

    def _put_in_force(self, loaded: LoadedRecipe) -> None:
        self.recipe, self._holding = loaded, ""
        self._judged_on = judged_on(loaded)
        self.shelf.in_force(loaded.recipe_id)
        self._signed_by = self.shelf.signed_by(loaded.recipe_id)
        self.inspector.use(loaded)
        self.controller.set_recipe(loaded.recipe_id, loaded.classes)
        self.metrics.recipe(loaded.recipe_id, loaded.sha256)
        event("recipe.in_force", recipe=loaded.recipe_id, sha256=loaded.sha256)

    def _take_recipes(self) -> None:
        """Put in force what was prepared: for a person, to end a hold, or as the new version of what is in force."""
        if wanted := self.desk.next_request():
            self.shelf.prepare(wanted)
        for ended in self.shelf.finished():
            requested, held = self.desk.is_requested(ended), bool(self._holding)
            is_newer = not held and ended.recipe_id == self.recipe.recipe_id
            if ended.refusal is None and (requested or is_newer or (held and not ended.renewed)):
                loaded = self.shelf.take(ended.recipe_id)
                if loaded is not self.recipe or held:
                    self._put_in_force(loaded)
            if not ended.renewed and ended.recipe_id in self._asked:
                self._asked.discard(ended.recipe_id)
                self.controller.prepared(ended.recipe_id, ended.refusal)
        if self.shelf.known != self._recipes:
            self._recipes = self.shelf.known
            self.controller.set_recipes(self._recipes)

    # ---- health

    def _set_state(self, state: StationState) -> None:
        if state != self.state:
            event("station.state", state=state.name)
            self.outbox.show_state(state.name)
            self.metrics.show(state, store=self.healthy, cameras=self._faults)
        self.state = state
        self.controller.set_state(state)

    def _show_state(self) -> None:
        """Ready only when a part could be judged now."""
        if not self.healthy or any(self._faults.values()):
            self._set_state(StationState.ERROR)
        elif self._holding:
            self._set_state(StationState.INITIALIZED)
        elif self._late is None:
            self._set_state(StationState.READY)
        self.desk.show(self._facts())

    def _look(self) -> None:
        """See what cameras say of themselves; now and then what publishers and evidence do."""
        for role, camera in self.cameras.items():
            fault = camera.fault()
            if fault != self._faults[role]:
                event("camera.fault" if fault else "camera.good", level=logging.WARNING, camera=role, fault=fault)
            self._faults[role] = fault
        if monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = monotonic()
        self.metrics.show(self.state, store=self.healthy, cameras=self._faults)
        self.metrics.evidence(
            skipped=self.evidence.skipped, failed=self.evidence.failed, unentered=self.evidence.unentered
        )
        self.metrics.checkpoints(fault=self.notary.fault)
        try:
            self.outbox.trim(self.store)
            self._publishers = self.outbox.status()
            for name, status in self._publishers.items():
                self.metrics.publisher(name, connected=status.connected, waiting=status.waiting)
        except StoreError as error:
            event("store.failed", level=logging.ERROR, what=error.what, fix=error.fix)
            self.healthy = False

    def _facts(self) -> Facts:
        return Facts(
            self.state, self.recipe, self._signed_by, self._holding, self._recipes, self._faults,
            self._controller_fault, self._publishers, self.evidence, self.healthy,
            self.notary.fault, self.notary.contradicted,
        )  # fmt: skip

    def _close_desk(self) -> None:
        """A station that a fault ended says so; any other is halted."""
        if self.state != StationState.ERROR:
            self.state = StationState.HALTED
        self.desk.close(self._facts())

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


def _stuck(part: str) -> ControllerError:
    return ControllerError(
        f"{part} has been in work for {STUCK_S:.0f} s beyond its deadline",
        fix="the station's service starts it again; check camera driver and processor load",
    )
