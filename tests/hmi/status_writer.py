"""Says in a station's place how it is, once a second, until told to stop."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hmi_site import Site

from inspection import station_link
from inspection.images import write_whole
from inspection.recipe import lock_sha256
from inspection.station_link import ControllerStatus, EvidenceStatus, StationStatus, status_path
from inspection.types import utc_now


class SaidStatus:
    """The status of a station that is well; ``say(field=...)`` changes it."""

    def __init__(self, site: Site) -> None:
        recipe = Path(site.config.recipe)
        self.path = status_path(site.store_path)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.status = StationStatus(
            station_id="line-7", state="READY", written_at=utc_now(), pid=1, recipe_id="demo-pcb",
            recipe_sha256=lock_sha256(recipe), recipe_folder=str(recipe), recipe_signed_by="", holding="",
            recipes=("demo-pcb", "other-pcb"), cameras={"top": ""}, controller=ControllerStatus(kind="modbus_tcp"),
            publishers={}, evidence=EvidenceStatus(folder="", skipped=0, failed=0, last_error="", free_mb=80000.0),
            store_free_mb=80000.0, healthy=True, model="pcb-golden", provider="cpu", threads=1, deadline_ms=2000,
        )  # fmt: skip

    def say(self, **changes: Any) -> None:
        """Change the status and write it at once."""
        with self._lock:
            self.status = self.status.model_copy(update={**changes, "written_at": utc_now()})
            write_whole(self.path, self.status.model_dump_json().encode())

    def run(self) -> None:
        while not self._ended.wait(0.7):
            self.say()

    def end(self) -> None:
        self._ended.set()


@contextmanager
def saying(site: Site) -> Iterator[SaidStatus]:
    """A station's status while the block runs, however slow the computer is; it goes stale afterwards."""
    said = SaidStatus(site)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(station_link, "STALE_S", 3600.0)
        said.say()
        thread = threading.Thread(target=said.run, daemon=True)
        thread.start()
        try:
            yield said
        finally:
            said.end()
            thread.join(timeout=10)
