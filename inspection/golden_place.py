"""From a place on the frame to the place on the golden template that lay there, by what the record measured."""

import math
from collections.abc import Mapping

from inspection.types import Box


def on_golden(
    box: Box, measured: Mapping[str, float], camera: str, size_px: tuple[int, int]
) -> tuple[float, float] | None:
    """Where the centre of a box on the frame lies on the golden, in pixels of the golden.

    ``measured`` is that of a record: shift, turn and scale of the golden, about its centre, as ``CAMERA.QUANTITY``;
    ``size_px`` its width and height.  None where either does not say how the golden lay.
    """
    shift = measured.get(f"{camera}.shift_x_px"), measured.get(f"{camera}.shift_y_px")
    turn, scale = measured.get(f"{camera}.turn_deg"), measured.get(f"{camera}.scale")
    if shift[0] is None or shift[1] is None or turn is None or not scale or not all(size_px):
        return None
    middle = size_px[0] / 2, size_px[1] / 2
    x, y = (box[0] + box[2]) / 2 - middle[0] - shift[0], (box[1] + box[3]) / 2 - middle[1] - shift[1]
    cos, sin = math.cos(math.radians(turn)) / scale, math.sin(math.radians(turn)) / scale
    return middle[0] + cos * x + sin * y, middle[1] - sin * x + cos * y
