"""The methods of the address space: from OPC UA's arguments to the jobs, and back."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from inspection.controllers.opcua.jobs import Jobs, Order, Refusal, Result
from inspection.controllers.opcua.nodes import AUTOMATIC, MACHINE, RECIPES, RESULTS, VisionNodes, opcua_types
from inspection.log import event
from inspection.types import utc_now

_PREPARE_LIMIT_S = 2.0
_LOT = "lot="
_PAGE = 100
_T = TypeVar("_T")


class Methods:
    """What the line may call.  ``changed`` guards the jobs; ``tell`` is called when there may be news for the line."""

    def __init__(self, jobs: Jobs, changed: threading.Condition, tell: Callable[[], None]) -> None:
        self._jobs = jobs
        self._changed = changed
        self._tell = tell

    async def link(self, nodes: VisionNodes) -> None:
        """Answer every method that is served."""
        ua = opcua_types()

        def error(refusal: Refusal) -> Any:
            return ua.Variant(int(refusal), ua.VariantType.Int32)

        def simple(name: str, act: Callable[[Jobs], Refusal]) -> Callable[..., Any]:
            async def method(*_cause: object) -> list[Any]:
                return [error(await self._asked(name, act, nodes))]

            return method

        def start(name: str, begin: Callable[[Order], tuple[str, Refusal]]) -> Callable[..., Any]:
            async def method(*arguments: Any) -> list[Any]:
                job_id = ""

                def act(_jobs: Jobs) -> Refusal:
                    nonlocal job_id
                    order = _order(*arguments)
                    if isinstance(order, Refusal):
                        return order
                    job_id, refusal = begin(order)
                    return refusal

                refusal = await self._asked(name, act, nodes)
                return [nodes.identity("JobId", job_id), error(refusal)]

            return method

        jobs = self._jobs
        served: dict[tuple[str, ...], Callable[..., Any]] = {
            (*MACHINE, "Halt"): simple("Halt", Jobs.halt),
            (*MACHINE, "Reset"): simple("Reset", Jobs.reset),
            (*MACHINE, "SelectModeAutomatic"): simple("SelectModeAutomatic", Jobs.select_automatic),
            (*AUTOMATIC, "Stop"): simple("Stop", Jobs.stop),
            (*AUTOMATIC, "Abort"): simple("Abort", Jobs.abort),
            (*AUTOMATIC, "StartSingleJob"): start(
                "StartSingleJob", lambda order: jobs.start_single(order, now=utc_now())
            ),
            (*AUTOMATIC, "StartContinuous"): start(
                "StartContinuous", lambda order: jobs.start_continuous(order, now=utc_now())
            ),
        }
        for path, method in served.items():
            await nodes.serve(path, method)
        await self._link_recipes(nodes, error)
        await self._link_results(nodes, error)

    async def _link_recipes(self, nodes: VisionNodes, error: Callable[[Refusal], Any]) -> None:
        ua = opcua_types()
        kinds = ua.VariantType

        async def prepare(external: Any, internal: Any) -> list[Any]:
            name = _text(external) or _text(internal)
            refusal = await self._asked("PrepareRecipe", lambda jobs: jobs.prepare(name), nodes)
            done = False
            if refusal == Refusal.NONE:
                refusal, done = await self._prepared_within(name, nodes)
            return [nodes.recipe_id(name), ua.Variant(done, kinds.Boolean), error(refusal)]

        async def unprepare(external: Any, internal: Any) -> list[Any]:
            name = _text(external) or _text(internal)
            refusal = await self._asked("UnprepareRecipe", lambda jobs: jobs.unprepare(name), nodes)
            return [nodes.recipe_id(name), error(refusal)]

        async def recipes(external: Any, _product: Any, _prepared: Any, most: Any, first: Any, _time: Any) -> list[Any]:
            with self._changed:
                names = self._jobs.recipe_ids or tuple(filter(None, (self._jobs.recipe_id,)))
            wanted = _text(external)
            found, whole = _page([name for name in names if wanted in ("", name)], most, first)
            listed = [nodes.recipe_id(name).Value for name in found]
            return [
                ua.Variant(whole, kinds.Boolean),
                ua.Variant(len(listed), kinds.UInt32),
                ua.Variant(0, kinds.UInt32),
                ua.Variant(listed, kinds.ExtensionObject, is_array=True),
                error(Refusal.NONE),
            ]

        await nodes.serve((*RECIPES, "PrepareRecipe"), prepare)
        await nodes.serve((*RECIPES, "UnprepareRecipe"), unprepare)
        await nodes.serve((*RECIPES, "GetRecipeListFiltered"), recipes)

    async def _link_results(self, nodes: VisionNodes, error: Callable[[Refusal], Any]) -> None:
        ua = opcua_types()
        kinds = ua.VariantType

        async def by_id(result_id: Any, _timeout: Any) -> list[Any]:
            name = _text(result_id)
            with self._changed:
                found = self._jobs.find(name)
            shown = ua.Variant(None) if found is None else ua.Variant(nodes.result(found), kinds.ExtensionObject)
            refusal = Refusal.UNKNOWN_RESULT if found is None else Refusal.NONE
            return [ua.Variant(0, kinds.UInt32), shown, error(refusal)]

        async def listed(*filters: Any) -> list[Any]:
            state, meas, part, external, internal, _, _, product, job, most, first, _ = filters
            wanted = tuple(map(_text, (meas, part, external, product, job)))
            with self._changed:
                kept = list(self._jobs.results.values())
            fitting = [one for one in kept if _fits(one, wanted, state or 0, _text(internal))]
            found, whole = _page(fitting, most, first)
            return [
                ua.Variant(whole, kinds.Boolean),
                ua.Variant(len(found), kinds.UInt32),
                ua.Variant(0, kinds.UInt32),
                ua.Variant([nodes.result(one) for one in found], kinds.ExtensionObject, is_array=True),
                error(Refusal.NONE),
            ]

        async def components(*_arguments: Any) -> Any:
            return ua.StatusCode(ua.UInt32(ua.StatusCodes.BadNotImplemented))

        await nodes.serve((*RESULTS, "GetResultById"), by_id)
        await nodes.serve((*RESULTS, "GetResultListFiltered"), listed)
        await nodes.serve((*RESULTS, "GetResultComponentsById"), components)

    async def _asked(self, name: str, act: Callable[[Jobs], Refusal], nodes: VisionNodes) -> Refusal:
        """Carry out what the line asked for, and let both sides know."""
        with self._changed:
            refusal = act(self._jobs)
            self._changed.notify_all()
        self._tell()
        if refusal != Refusal.NONE:
            event("controller.rejected", level=logging.WARNING, method=name, code=refusal.name)
            await nodes.write("LastRefusal", f"{name}: {refusal.name}")
        return refusal

    async def _prepared_within(self, name: str, nodes: VisionNodes) -> tuple[Refusal, bool]:
        """Wait a bounded time for the station's answer; without one the event RecipePrepared tells later."""
        deadline_s = time.monotonic() + _PREPARE_LIMIT_S
        while time.monotonic() < deadline_s:
            with self._changed:
                answered, refused = self._jobs.preparing is None, self._jobs.prepare_refusal
            if answered and refused is not None:
                await nodes.write("LastRefusal", f"PrepareRecipe {name}: {refused.text}")
                return Refusal.RECIPE_REFUSED, False
            if answered:
                return Refusal.NONE, True
            await asyncio.sleep(0.01)
        return Refusal.NONE, False


def _order(meas: Any, part: Any, recipe: Any, product: Any, parameters: Any) -> Order | Refusal:
    lot = ""
    for parameter in parameters if isinstance(parameters, list) else []:
        value = getattr(parameter, "Value", parameter)
        if not isinstance(value, str) or not value.startswith(_LOT):
            return Refusal.BAD_PARAMETER
        lot = value.removeprefix(_LOT)
    return Order(_text(meas), _text(part), _text(recipe), _text(product), lot)


def _text(value: Any) -> str:
    """The text of an id, "" for null; TypeError for anything that is no id."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else getattr(value, "Id", None)
    if text is None and hasattr(value, "Id"):
        return ""
    if not isinstance(text, str):
        raise TypeError(f"{type(value).__name__} is no id")
    return text


def _fits(result: Result, wanted: Sequence[str], state: int, internal: str) -> bool:
    order = result.order
    have = (order.meas_id, order.part_id, order.recipe_id, order.product_id, result.job_id)
    named = all(want in ("", has) for want, has in zip(wanted, have, strict=True))
    return named and state in (0, int(result.state)) and internal in ("", result.record.recipe_id)


def _page(found: Sequence[_T], most: Any, first: Any) -> tuple[list[_T], bool]:
    """At most ``most`` (0 = 100) of them from ``first`` on, and whether these are the last ones."""
    start, count = int(first or 0), min(int(most or 0) or _PAGE, _PAGE)
    return list(found[start : start + count]), start + count >= len(found)
