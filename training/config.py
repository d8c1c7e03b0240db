"""What a training run is asked to do; stored in its folder and in the ModelCard."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class NetShape:
    """The form of the net that a model file holds, for a run that goes on from it.

    ``channels`` that the net sees; part net: ``size`` (height, width) of its input and the factor ``shrink`` before that;
    detect net: finest stride and tile, px.
    """

    channels: int
    size: tuple[int, int] | None = None
    shrink: int = 1
    first_stride: int = 0
    tile_px: int = 0


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One run.  Exactly one of ``minutes`` and ``epochs`` ends it; an epoch is 4,000 crops (for a foreign trainer: once
    through the data).

    ``product`` and ``trainer`` say what is learnt and who teaches it.  ``data`` is a dataset; for the product pcb it may
    be left out for ``goldens``, a folder of golden images, or for nothing: then boards are generated.  ``hold_out``
    names groups that are left out of training and measured on.  ``init`` is a checkpoint to start from,
    ``threshold_of`` a model whose threshold to take over.
    For pcb: ``ignore_labels`` uses the goldens of ``data`` alone, ``box_margin_px`` is how loose the boxes of injected
    defects are, ``copper`` is "dark" or "light".  For parts: ``fixed`` when every part lies the same way, ``inject``
    false to do without injected defects, ``input_px`` the side of the part net's input.  ``shape``: the form of the net
    that ``init`` is of, where it is not to follow from the samples.
    """

    out: Path
    product: str = "pcb"
    trainer: str = "lineside"
    data: Path | None = None
    goldens: Path | None = None
    minutes: float | None = None
    epochs: float | None = None
    device: str = "cpu"
    seed: int = 1
    hold_out: tuple[str, ...] = ()
    resume: bool = False
    init: Path | None = None
    threshold_of: Path | None = None
    ignore_labels: bool = False
    command: str = ""
    copper: str = "dark"
    box_margin_px: float = 11.0
    fixed: bool = False
    inject: bool = True
    input_px: int = 224
    crop_px: int = 320
    batch: int = 16
    learning_rate: float = 3e-3
    workers: int = 2
    shape: NetShape | None = None
