"""How much of what lies on the disk is to go by the limits of [retention]."""

import shutil
from math import ceil
from pathlib import Path

from inspection.retention.section import RetentionSection


def over_limit(section: RetentionSection, folder: Path, total: int) -> tuple[int, str]:
    """How many bytes of ``total``, what the pictures take, are to go, and by which limit; (0, "") when none are."""
    disk = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists()))
    over = (
        (total - section.max_gb * 1e9, section.max_gb, f"limit: max_gb = {section.max_gb:g}"),
        (total - section.max_share * disk.total, section.max_share, f"limit: max_share = {section.max_share:g}"),
        (section.min_free_gb * 1e9 - disk.free, section.min_free_gb, f"limit: min_free_gb = {section.min_free_gb:g}"),
    )
    most, _, words = max((one for one in over if one[1]), default=(0, 0, ""))
    return (ceil(most), words) if most > 0 else (0, "")
