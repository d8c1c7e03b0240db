"""Line controller over OPC UA: the server in its own thread with its own event loop, as the station sees it."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from inspection.controllers import StationState
from inspection.controllers.opcua.config import OpcUaConfig
from inspection.controllers.opcua.guard import guarded_server
from inspection.controllers.opcua.jobs import Jobs, Order, Refusal, Result
from inspection.controllers.opcua.nodes import AUTOMATIC, MACHINE, RECIPES, RESULTS, VisionNodes, opcua_types
from inspection.controllers.opcua.security import Doorman, Trusted, read_users, server_identity
from inspection.errors import ControllerError, DriverMissing, InspectionError
from inspection.log import event
from inspection.types import PrepareRecipe, Reason, Record, Trigger, utc_now

_START_LIMIT_S = 60.0
_CLOSE_LIMIT_S = 10.0
_PREPARE_LIMIT_S = 2.0
_LOT = "lot="
_PAGE = 100
_T = TypeVar("_T")


class OpcUaController:
    """OPC UA server for one line.

    ``open`` blocks until the port is served (about two seconds: the address space is built); no other method but
    ``wait`` blocks.  A part that was accepted before the state left READY is still handed out by ``wait``.
    """

    def __init__(self, config: OpcUaConfig) -> None:
        self.config = config
        self._jobs = Jobs()
        self._changed = threading.Condition()  # guards the jobs; notified when the line or the station changed them
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._news: asyncio.Event | None = None

    def open(self) -> None:
        """Start serving; DriverMissing without asyncua, ConfigError for users or certificates that cannot be read,
        ControllerError when the port cannot be had.
        """
        try:
            import asyncua  # noqa: F401
        except ImportError as error:
            raise DriverMissing(
                f"the controller 'opcua' needs asyncua 2.1, which cannot be imported: {error}",
                fix='pip install "lineside[opcua]"',
            ) from error
        if self.config.users:
            read_users(Path(self.config.users))
            if not self.config.encrypted:
                event("controller.plain_passwords", level=logging.WARNING, why="security = none")
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="opcua", daemon=True)
        self._thread.start()
        try:
            started.result(timeout=_START_LIMIT_S)
        except (InspectionError, TimeoutError) as error:
            self.close()
            if isinstance(error, InspectionError):
                raise
            raise self._not_running() from error

    def wait(self, timeout_ms: int) -> Trigger | PrepareRecipe | None:
        """The next job or wish, or None after ``timeout_ms``; ControllerError when the server has stopped."""
        deadline_s = time.monotonic() + timeout_ms / 1000
        with self._changed:
            while (wanted := self._jobs.take(now=utc_now())) is None:
                left_s = deadline_s - time.monotonic()
                if self._thread is None or not self._thread.is_alive():
                    raise self._not_running()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
        self._tell()
        return wanted

    def acquired(self, trigger: Trigger) -> None:
        """Raise AcquisitionDone: the part may move."""
        self._change(lambda jobs: jobs.acquired(trigger))

    def answer(self, record: Record) -> None:
        """Raise ResultReady for the job in progress; ControllerError when ``record`` belongs to another one."""
        self._change(lambda jobs: jobs.answer(record))

    def prepared(self, recipe_id: str, refusal: Reason | None) -> None:
        """Answer PrepareRecipe."""
        self._change(lambda jobs: jobs.prepared(recipe_id, refusal))

    def set_state(self, state: StationState) -> None:
        """Show the state and, in READY, accept jobs."""
        self._change(lambda jobs: jobs.set_state(state))

    def set_recipe(self, recipe_id: str, classes: tuple[str, ...]) -> None:
        """Show the recipe in force; classes are named in each result."""
        with self._changed:
            self._jobs.recipe_id = recipe_id
        self._tell()

    def set_recipes(self, recipe_ids: tuple[str, ...]) -> None:
        """List what may be asked for; a job with another recipe is refused."""
        with self._changed:
            self._jobs.recipe_ids = recipe_ids

    def close(self) -> None:
        """End every connection and free the port.  May be called more than once."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._loop is not None and self._stop is not None and thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._loop.call_soon_threadsafe(self._news.set if self._news else self._stop.set)
        thread.join(timeout=_CLOSE_LIMIT_S)

    def _change(self, change: Callable[[Jobs], object]) -> None:
        with self._changed:
            change(self._jobs)
        self._tell()

    def _tell(self) -> None:
        """Wake the server's thread: there may be news for the line."""
        news, thread = self._news, self._thread
        if self._loop is None or news is None or thread is None or not thread.is_alive():
            return
        try:
            self._loop.call_soon_threadsafe(news.set)
        except RuntimeError as error:  # the loop ended between the question and the call
            raise self._not_running() from error

    # In the server's thread

    def _run(self, started: "Future[None]") -> None:
        try:
            asyncio.run(self._serve(started))
        except (InspectionError, OSError) as error:
            told = error if isinstance(error, InspectionError) else self._cannot_listen(error)
            if started.done():
                event("controller.stopped", level=logging.CRITICAL, error=error)
            else:
                started.set_exception(told)
        finally:
            if not started.done():
                started.set_exception(self._not_running())
            with self._changed:
                self._changed.notify_all()

    async def _serve(self, started: "Future[None]") -> None:
        self._probe()
        config, folder = self.config, Path(self.config.certificates)
        trusted = Trusted(folder) if config.encrypted else None
        server = guarded_server(config, Doorman(Path(config.users) if config.users else None), trusted)
        await server.init()
        server.set_endpoint(config.endpoint)
        server.set_server_name("Lineside")
        uri = f"urn:{socket.gethostname()}:lineside"
        await server.set_application_uri(uri)
        if config.encrypted:
            certificate, key = server_identity(folder, uri, config.host)
            await server.load_certificate(certificate)
            await server.load_private_key(key)
        nodes = VisionNodes(server, config.name)
        await nodes.build()
        await self._link(nodes)
        self._loop, self._stop, self._news = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        self._news.set()
        try:
            await server.start()
            started.set_result(None)
            await self._publish_until(self._stop, self._news, nodes)
        finally:
            await server.stop()

    async def _publish_until(self, stop: asyncio.Event, news: asyncio.Event, nodes: VisionNodes) -> None:
        period_s, recipe_id = self.config.heartbeat_ms / 1000, ""
        beat_s = time.monotonic()
        while not stop.is_set():
            try:
                await asyncio.wait_for(news.wait(), max(0.0, beat_s - time.monotonic()))
            except TimeoutError:
                beat_s = time.monotonic() + period_s
                await nodes.beat()
            news.clear()
            with self._changed:
                announced, now_in_force = self._jobs.drain(), self._jobs.recipe_id
                self._changed.notify_all()  # the next part of a series waits for this
            if now_in_force != recipe_id:
                recipe_id = now_in_force
                await nodes.write("RecipeId", recipe_id)
            for announcement in announced:
                await nodes.announce(announcement)

    async def _link(self, nodes: VisionNodes) -> None:
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
        if self._news is not None:
            self._news.set()
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

    def _probe(self) -> None:
        """Say at once why the port cannot be had, before the address space is built."""
        family, kind, _, _, where = socket.getaddrinfo(self.config.host, self.config.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen()

    def _not_running(self) -> ControllerError:
        return ControllerError(
            f"the OPC UA server on {self.config.host} port {self.config.port} is not running",
            fix="read the log for its last error, then restart the station",
        )

    def _cannot_listen(self, error: OSError) -> ControllerError:
        return ControllerError(
            f"cannot serve the line on {self.config.host} port {self.config.port}: {error.strerror or error}",
            fix="end the other program on this port or set another port; host must be an address of this machine, "
            "and a port below 1024 needs privileges",
        )


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
