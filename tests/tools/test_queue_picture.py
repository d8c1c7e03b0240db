import numpy as np

from inspection.images import decode_image
from tools.queue_picture import draw, figures_of, table

IMAGES = 40


def row(arm: str, seed: int, labels: int, test: str, hits: int) -> dict[str, object]:
    """A model that finds ``hits`` of the six defects on every image and calls one falsely."""
    return {
        "arm": arm, "seed": seed, "labels": labels, "test": test, "map_50": hits / 6, "map_33": hits / 6,
        "threshold": 0.4, "hits": hits * IMAGES, "false_calls": IMAGES, "missed": (6 - hits) * IMAGES, "escapes": 0,
        "defective": IMAGES, "errors": 0, "per_image": [[hits, hits + 1, 6]] * IMAGES,
    }  # fmt: skip


def summary(queue: int, random: int) -> dict[str, object]:
    rows = [row("start", 0, 0, group, 2) for group in ("a", "b")]
    for seed in (1, 2):
        rows += [row("queue", seed, 50, group, queue) for group in ("a", "b")]
        rows += [row("random", seed, 50, group, random) for group in ("a", "b")]
    tested = {group: {"images": IMAGES, "pool": 90} for group in ("a", "b")}
    start = {"groups": ["c"], "images": 30, "steps": 10}
    return {"start": start, "tested": tested, "top": 50, "steps": 5, "batch": 16, **figures_of(rows), "rows": rows}


def test_groups_of_a_seed_are_put_together() -> None:
    """Counts are those of all images of all groups, and F follows from them."""
    point = next(p for p in summary(5, 4)["points"] if p["arm"] == "queue")
    assert (50, [1, 2]) == (point["labels"], [seed["seed"] for seed in point["seeds"]])
    assert (400, 80, 80) == tuple(point["seeds"][0][key] for key in ("hits", "false_calls", "missed"))
    assert point["seeds"][0]["f"] == 2 * 400 / (2 * 400 + 80 + 80)


def test_who_is_ahead_is_told_with_its_interval() -> None:
    """The sign is that of queue minus chance; equal arms differ by nothing."""
    better, worse, equal = (summary(*hits)["queue_ahead_of"]["random"] for hits in ((5, 4), (3, 4), (4, 4)))
    assert better["f"] > 0 > worse["f"]
    assert (0.0, [0.0, 0.0]) == (equal["f"], equal["interval_95"])
    low, high = better["interval_95"]
    assert low <= better["f"] <= high


def test_table_and_picture_show_what_there_is() -> None:
    """Arms that are not finished are left out; the picture is 800 px wide and not blank."""
    text = table(summary(5, 4))
    assert "at random" in text
    assert "as many steps" not in text
    image = decode_image(draw(summary(5, 4)), "curve")
    assert 800 == image.shape[1]
    assert np.ptp(image) > 200
