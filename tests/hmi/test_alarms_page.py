"""What the operator's page says of a full disk and of a store that was exchanged."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hmi_site import Browser, Seen, Site, open_site, until
from status_writer import saying


@pytest.fixture
def small_site(tmp_path: Path, demo_recipe: Path, seen: dict[str, Seen]) -> Iterator[Site]:
    """A site with everything on a disk of 48 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [shutil.which("mount") or "mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(disk)]
    if os.name != "posix" or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        with ExitStack() as stack:
            yield open_site(stack, disk, demo_recipe, seen)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_is_said_although_the_station_cannot(small_site: Site, browser: Browser) -> None:
    """When its status is old and the disk of the records full, the page asks for space, and shows no old value as present."""
    small_site.add_part("OK", pictures=False)
    page = browser.open(small_site, "/", "olga")
    with saying(small_site):
        page.wait_for_selector("#station .lamp.good")
    with suppress(OSError), (small_site.folder / "filler").open("wb", buffering=0) as filler:
        while filler.write(b"x" * 4096):
            pass
    until(lambda: "DISK FULL" in page.inner_text("#now .lost"))
    assert "Free space on that disk now" in page.inner_text("#now .lost")
    until(lambda: "Said last" in page.inner_text("#station"))
    card = page.inner_text("#station .devices")
    assert "0 MB free" in card
    assert "80000" not in card
    assert "good" not in card
    (small_site.folder / "filler").unlink()
    page.wait_for_selector("text=STATION NOT RUNNING")


def test_an_exchanged_store_is_an_alarm(site: Site, browser: Browser) -> None:
    """What the station found to be contradicted stands among the alarms, with what to do, and on the station's card."""
    site.add_part("OK", pictures=False)
    page = browser.open(site, "/", "olga")
    with saying(site) as said:
        said.say(contradicted="records.sqlite, entry 7")
        page.wait_for_selector("#station .alarms .level-2")
        assert "not what was signed before: records.sqlite, entry 7" in page.inner_text("#station .alarms")
        assert "lineside audit" in page.inner_text("#station .alarms")
        assert "do not fit" in page.inner_text("#station .devices")
