"""What a station says of itself in numbers: a Prometheus text endpoint on loopback (`metrics_port`)."""

import threading
from collections.abc import Mapping
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, start_http_server

from inspection.controllers import StationState
from inspection.errors import ControllerError
from inspection.types import Record, Verdict

SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Counts and gauges of one station, with a registry of their own.  Cheap; called by the station's thread."""

    def __init__(self, station_id: str) -> None:
        self.registry = CollectorRegistry()
        ours = self.registry
        self._parts = Counter("lineside_parts", "parts answered, by verdict", ["verdict"], registry=ours)
        self._reasons = Counter("lineside_reasons", "first reasons of parts that are not OK", ["rule"], registry=ours)
        self._repeats = Counter("lineside_repeats", "triggers answered from their record", registry=ours)
        self._late = Counter("lineside_late", "parts whose result came after the deadline", registry=ours)
        self._answer = Histogram(
            "lineside_answer_seconds", "trigger accepted to controller answered", buckets=SECONDS, registry=ours
        )
        self._stages = Histogram(
            "lineside_stage_seconds", "time in each stage", ["stage"], buckets=SECONDS, registry=ours
        )
        self._state = Gauge("lineside_state", "1 for the state the station is in", ["state"], registry=ours)
        self._cameras = Gauge("lineside_camera_up", "1 while the camera can be used", ["camera"], registry=ours)
        self._store = Gauge("lineside_store_up", "1 while the record store takes writes", registry=ours)
        self._evidence = Gauge("lineside_evidence_lost", "records without pictures, by cause", ["cause"], registry=ours)
        self._unentered = Gauge("lineside_evidence_unentered", "pictures that wait for the ledger", registry=ours)
        self._checkpoints = Gauge("lineside_checkpoints_up", "1 while checkpoints can be written", registry=ours)
        self._waiting = Gauge(
            "lineside_outbox_waiting", "records a publisher was not told of", ["publisher"], registry=ours
        )
        self._publishers = Gauge(
            "lineside_publisher_up", "1 while the publisher is connected", ["publisher"], registry=ours
        )
        self._recipe = Info("lineside_recipe", "the recipe in force", registry=ours)
        Info("lineside_station", "which station this is", registry=ours).info({"station_id": station_id})
        self._server: tuple[WSGIServer, threading.Thread] | None = None

    def serve(self, port: int) -> None:
        """Answer on 127.0.0.1; ControllerError when the port is taken."""
        try:
            self._server = start_http_server(port, addr="127.0.0.1", registry=self.registry)
        except OSError as error:
            raise ControllerError(
                f"cannot serve the metrics on 127.0.0.1 port {port}: {error.strerror}",
                fix="end the other program on this port, or set another metrics_port (0 = none)",
            ) from error

    def answered(self, record: Record, seconds: float) -> None:
        """A part was judged and its controller answered."""
        self._parts.labels(record.judgement.verdict.name).inc()
        if record.judgement.verdict != Verdict.OK:
            self._reasons.labels(record.judgement.reasons[0].rule_id).inc()
        self._answer.observe(seconds)
        for stage, spent_ms in record.stage_ms:
            self._stages.labels(stage).observe(spent_ms / 1000)

    def repeated(self) -> None:
        """A trigger was answered from its record."""
        self._repeats.inc()

    def late(self) -> None:
        """A true result came after the deadline."""
        self._late.inc()

    def show(self, state: StationState, *, store: bool, cameras: Mapping[str, str]) -> None:
        """What the station is in now; ``cameras`` maps each role to its fault, "" for none."""
        for one in StationState:
            self._state.labels(one.name.lower()).set(one == state)
        self._store.set(store)
        for role, fault in cameras.items():
            self._cameras.labels(role).set(not fault)

    def evidence(self, *, skipped: int, failed: int, unentered: int) -> None:
        """Records whose pictures were not kept, and files that wait for the evidence ledger."""
        self._unentered.set(unentered)
        self._evidence.labels("queue_full").set(skipped)
        self._evidence.labels("disk").set(failed)

    def checkpoints(self, *, fault: str) -> None:
        """Why no checkpoint could be written, "" when they are."""
        self._checkpoints.set(not fault)

    def publisher(self, name: str, *, connected: bool, waiting: int) -> None:
        """How far a publisher is behind."""
        self._publishers.labels(name).set(connected)
        self._waiting.labels(name).set(waiting)

    def recipe(self, recipe_id: str, sha256: str) -> None:
        """The recipe in force."""
        self._recipe.info({"recipe_id": recipe_id, "sha256": sha256})

    def close(self) -> None:
        """Stop answering; a second call does nothing."""
        server, self._server = self._server, None
        if server is not None:
            server[0].shutdown()
            server[0].server_close()
            server[1].join(timeout=5.0)
