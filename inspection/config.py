"""Station config (what a machine needs), as typed TOML.  What a product needs is in ``recipe_config``.

Unknown keys are refused, all mistakes are reported at once with file, key and what is allowed, and values that would
switch a check off are out of range.  Loading changes no value, opens no device and reads no network.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from inspection.cameras.folder import FolderCameraConfig
from inspection.cameras.genicam import GenicamCameraConfig
from inspection.cameras.opencv import OpencvCameraConfig
from inspection.cameras.pylon import PylonCameraConfig
from inspection.cameras.simulated import SimulatedCameraConfig
from inspection.controllers.modbus_client import ModbusClientConfig
from inspection.controllers.modbus_tcp import ModbusTcpConfig
from inspection.controllers.opcua.config import OpcUaConfig
from inspection.controllers.simulated import SimulatedControllerConfig
from inspection.controllers.tcp_text import TcpTextConfig
from inspection.model import Provider
from inspection.publishers.folder import FolderConfig
from inspection.publishers.mqtt import MqttConfig
from inspection.publishers.postgres import PostgresConfig
from inspection.publishers.webhook import WebhookConfig
from inspection.toml_file import NAME as NAME
from inspection.toml_file import Section, checked, read_toml

CameraConfig = Annotated[
    FolderCameraConfig | GenicamCameraConfig | OpencvCameraConfig | PylonCameraConfig | SimulatedCameraConfig,
    Field(discriminator="kind"),
]
MmPerPx = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
ControllerConfig = Annotated[
    ModbusTcpConfig | ModbusClientConfig | SimulatedControllerConfig | TcpTextConfig | OpcUaConfig,
    Field(discriminator="kind"),
]
PublisherConfig = Annotated[FolderConfig | MqttConfig | PostgresConfig | WebhookConfig, Field(discriminator="kind")]


class EvidenceSection(Section):
    """Where pictures of inspected parts go."""

    folder: str = Field(min_length=1, description="folder for evidence images")
    keep: Literal["all", "not-ok"] = Field(default="not-ok", description="which parts leave a picture")
    queue: int = Field(default=64, ge=1, le=10000, description="pictures that may wait for the disk")
    min_free_mb: int = Field(default=200, ge=0, description="free disk space below which no picture is written, MB")


class StationConfig(Section):
    """What one machine needs: cameras, controller, paths.  Names no threshold."""

    schema_version: Literal[1] = Field(default=1, description="version of this file's form")
    station_id: str = Field(pattern=NAME, description="name of this station in every record")
    recipe: str = Field(min_length=1, description="folder of the sealed recipe")
    store: str = Field(min_length=1, description="SQLite file of the records")
    threads: int = Field(default=0, ge=0, le=256, description="CPU threads of the detector, 0 = all cores")
    provider: Provider = Field(default="cpu", description="what runs the model; never another one in its place")
    recipes: str = Field(
        default="", description="folder of the recipes a controller may change to; empty = only `recipe`"
    )
    at_hand: int = Field(default=3, ge=1, le=50, description="recipes kept loaded for a change without a pause")
    refused_recipe: Literal["keep", "hold"] = Field(
        default="keep",
        description="after a change to a recipe that fails its checks: keep = the old one stays in force, hold = no part "
        "is accepted until a good one was prepared; the part that asked is ERROR either way",
    )
    keep_warm_ms: int = Field(
        default=50, ge=0, le=10000, description="pause after which the idle detector rehearses, ms; 0 = never"
    )
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="port of the Prometheus text endpoint on 127.0.0.1; 0 = none"
    )
    evidence: EvidenceSection = Field(description="where pictures of inspected parts go")
    cameras: dict[Annotated[str, Field(pattern=NAME)], CameraConfig] = Field(
        min_length=1, description="one camera for each role that a recipe may name"
    )
    controller: ControllerConfig = Field(description="the line controller that triggers and is answered")
    publishers: dict[Annotated[str, Field(pattern=NAME)], PublisherConfig] = Field(
        default={}, description="who is told of every record, under names of your choice"
    )
    outbox_limit: int = Field(
        default=1_000_000, ge=100, le=1_000_000_000,
        description="records that may wait for a publisher's receiver; beyond that the oldest are not told, and it hears which",
    )  # fmt: skip
    scale_mm_per_px: dict[Annotated[str, Field(pattern=NAME)], MmPerPx] = Field(
        default={},
        description="millimetres per pixel of each camera, by role; only for recipes whose rules name millimetres",
    )
    trusted_keys: tuple[str, ...] = Field(
        default=(), max_length=100,
        description="public key files (.pub): when given, only recipes signed with one of them are taken",
    )  # fmt: skip


def load_station(path: Path) -> StationConfig:
    """Read a station config; ConfigError listing every mistake.  Relative paths count from the file's folder."""
    config = checked(path, read_toml(path), StationConfig)
    here = path.resolve().parent
    cameras = {name: _from_here(camera, here) for name, camera in config.cameras.items()}
    return config.model_copy(
        update={
            "recipe": str(here / config.recipe),
            "recipes": str(here / config.recipes) if config.recipes else "",
            "store": str(here / config.store),
            "evidence": config.evidence.model_copy(update={"folder": str(here / config.evidence.folder)}),
            "cameras": cameras,
            "controller": _controller_from_here(config.controller, here),
            "publishers": {name: _files_from_here(publisher, here) for name, publisher in config.publishers.items()},
            "trusted_keys": tuple(str(here / key) for key in config.trusted_keys),
        }
    )


def _controller_from_here(controller: ControllerConfig, here: Path) -> ControllerConfig:
    return controller.from_folder(here) if isinstance(controller, OpcUaConfig) else controller


def _files_from_here(publisher: PublisherConfig, here: Path) -> PublisherConfig:
    named = {key: getattr(publisher, key) for key in publisher.FILES}
    return publisher.model_copy(update={key: str(here / file) for key, file in named.items() if file})


def _from_here(camera: CameraConfig, here: Path) -> CameraConfig:
    if isinstance(camera, FolderCameraConfig):
        return camera.model_copy(update={"folder": str(here / camera.folder)})
    if isinstance(camera, OpencvCameraConfig):
        return camera.model_copy(update={"source": str(here / camera.source)}) if camera.is_file else camera
    if isinstance(camera, PylonCameraConfig):
        folder = camera.emulated_images
        return camera.model_copy(update={"emulated_images": str(here / folder)}) if folder else camera
    if isinstance(camera, SimulatedCameraConfig) and camera.image:
        return camera.model_copy(update={"image": str(here / camera.image)})
    return camera
