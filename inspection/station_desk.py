"""What people ask of a station and what it tells them, for the station's own thread: nothing here touches a disk or waits."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Literal

from inspection.config import StationConfig
from inspection.controllers import StationState
from inspection.evidence import EvidenceWriter
from inspection.log import event
from inspection.outbox import PublisherStatus
from inspection.recipe import LoadedRecipe
from inspection.shelf import Prepared
from inspection.station_link import (
    ControllerStatus,
    EvidenceStatus,
    PublisherState,
    RecipeRequest,
    RefusedRecipe,
    RequestOutcome,
    StationStatus,
)
from inspection.status_board import StatusBoard, is_too_old
from inspection.types import Reason, utc_now

SHOW_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """How a station is at this moment; see StationStatus."""

    state: StationState
    recipe: LoadedRecipe
    signed_by: str
    holding: str
    recipes: tuple[str, ...]
    cameras: Mapping[str, str]
    controller_fault: str
    publishers: Mapping[str, PublisherStatus]
    evidence: EvidenceWriter
    healthy: bool
    checkpoint_fault: str = ""
    contradicted: str = ""


class Desk:
    """One wish at a time, with its outcome; the last recipe that was refused; and the status."""

    def __init__(self, config: StationConfig) -> None:
        self._config = config
        self._board = StatusBoard(Path(config.store))
        self._request: RecipeRequest | None = None
        self._outcome: RequestOutcome | None = None
        self._refused: RefusedRecipe | None = None
        self._shown: tuple[object, ...] = ()
        self._shown_s = 0.0

    def open(self) -> None:
        """Begin to show the status and to look for requests."""
        self._board.open()

    def next_request(self) -> str:
        """The recipe that a person asks for now; "" when nobody does, or an earlier wish is not settled yet."""
        if self._request is not None or (request := self._board.requested()) is None:
            return ""
        event("recipe.requested", recipe=request.recipe_id, by=request.by, request_id=request.request_id)
        if is_too_old(request):
            self._settle(request, "refused", "it was made long ago; ask again")
            return ""
        self._request = request
        self._settle(request, "waiting")
        return request.recipe_id

    def is_requested(self, ended: Prepared) -> bool:
        """Whether this is what a person waits for, whose wish is settled with it; what was refused is noted."""
        if ended.refusal is not None:
            self.refuse(ended.recipe_id, ended.refusal)
        elif self._refused is not None and self._refused.recipe_id == ended.recipe_id:
            self._refused = None
        request = self._request
        if request is None or ended.renewed or request.recipe_id != ended.recipe_id:
            return False
        self._request = None
        if ended.refusal is None:
            self._settle(request, "done")
        else:
            self._settle(request, "refused", ended.refusal.text)
        return True

    def refuse(self, recipe_id: str, reason: Reason) -> None:
        """Note that a recipe failed its checks."""
        refused = RefusedRecipe(recipe_id=recipe_id, text=reason.text, at=utc_now())
        last = self._refused
        if last is None or (last.recipe_id, last.text) != (refused.recipe_id, refused.text):
            self._refused = refused

    def show(self, facts: Facts) -> None:
        """Tell about once a second, and at once when something changed that people wait for."""
        state = StationState.READY if facts.state == StationState.SINGLE_EXECUTION else facts.state
        shown = (state, facts.recipe, facts.holding, facts.recipes, self._refused, self._outcome)
        if shown != self._shown or monotonic() - self._shown_s >= SHOW_S:
            self._shown, self._shown_s = shown, monotonic()
            self._board.show(self._status(facts))

    def close(self, facts: Facts) -> None:
        """Show how the station ended, and end; a second call does nothing."""
        self._board.show(self._status(facts))
        self._board.close()

    def _settle(self, request: RecipeRequest, outcome: Literal["waiting", "done", "refused"], text: str = "") -> None:
        if outcome != "waiting":
            event("recipe.request_settled", request_id=request.request_id, outcome=outcome, why=text)
        self._outcome = RequestOutcome(
            request_id=request.request_id, recipe_id=request.recipe_id, by=request.by, outcome=outcome, text=text
        )

    def _status(self, facts: Facts) -> StationStatus:
        recipe, evidence = facts.recipe, facts.evidence
        models = [view.model for view in recipe.views.values()]
        return StationStatus(
            station_id=self._config.station_id, state=facts.state.name, written_at=utc_now(), pid=0,
            recipe_id=recipe.recipe_id, recipe_sha256=recipe.sha256, recipe_folder=str(recipe.folder),
            recipe_signed_by=facts.signed_by, holding=facts.holding, recipes=facts.recipes, cameras=dict(facts.cameras),
            controller=ControllerStatus(kind=self._config.controller.kind, fault=facts.controller_fault),
            publishers={
                name: PublisherState(connected=one.connected, waiting=one.waiting, last_error=one.last_error)
                for name, one in facts.publishers.items()
            },
            evidence=EvidenceStatus(
                folder=str(evidence.folder), skipped=evidence.skipped, failed=evidence.failed,
                last_error=evidence.last_error, free_mb=None, unentered=evidence.unentered,
            ),
            store_free_mb=None, healthy=facts.healthy, model=", ".join(dict.fromkeys(one.card.name for one in models)),
            provider=models[0].provider, threads=models[0].threads, deadline_ms=recipe.deadline_ms,
            refused=self._refused, last_request=self._outcome, checkpoint_fault=facts.checkpoint_fault,
            contradicted=facts.contradicted,
        )  # fmt: skip
