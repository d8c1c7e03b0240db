"""Groups of parts by the lots they came from, so that no lot lies on two sides of a split."""

from collections import defaultdict
from collections.abc import Sequence

from datasets.look_alikes import joined


def lot_groups(parts: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The group of each part, from its own group (a serial) and its lot, which may be empty.

    Parts of one lot are one group, and so are lots that share a serial; it is named by the lot of its first part.  A serial
    that was in no lot stays a group of its own.
    """
    links: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for number, (group, lot) in enumerate(parts):
        links["serial", group].append(number)
        if lot:
            links["lot", lot].append(number)
    first = {number: together[0] for together in joined(len(parts), links.values()) for number in together}
    names = [f"lot {lot}" if lot else group for group, lot in parts]
    return tuple(names[first.get(number, number)] for number in range(len(parts)))
