"""Line controller over OPC UA: the server in its own thread with its own event loop, as the station sees it."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from inspection.controllers import StationState
from inspection.controllers.opcua.config import OpcUaConfig
from inspection.controllers.opcua.guard import guarded_server
from inspection.controllers.opcua.jobs import Jobs
from inspection.controllers.opcua.methods import Methods
from inspection.controllers.opcua.nodes import VisionNodes
from inspection.controllers.opcua.security import Doorman, Trusted, read_users, server_identity
from inspection.errors import ControllerError, DriverMissing, InspectionError, system_words
from inspection.log import event
from inspection.types import PrepareRecipe, Reason, Record, Trigger, utc_now

_START_LIMIT_S = 60.0
_CLOSE_LIMIT_S = 10.0


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
        await Methods(self._jobs, self._changed, self._tell).link(nodes)
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
            f"cannot serve the line on {self.config.host} port {self.config.port}: {system_words(error)}",
            fix="end the other program on this port or set another port; host must be an address of this machine, "
            "and a port below 1024 needs privileges",
        )
