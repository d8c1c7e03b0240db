"""Station config (what a machine needs), as typed TOML.  What a product needs is in ``recipe_config``.

Unknown keys are refused, all mistakes are reported at once with file, key and what is allowed, and values that would
switch a check off are out of range.  Loading changes no value, opens no device and reads no network.
"""

import ipaddress
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

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
from inspection.retention.section import RetentionSection
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
    keep: Literal["all", "not-ok", "not-ok-and-sample"] = Field(
        default="not-ok",
        description="which parts leave a picture; not-ok-and-sample = also the OK parts that are drawn for review "
        "(`review_ok_share` of [hmi])",
    )
    queue: int = Field(default=64, ge=1, le=10000, description="pictures that may wait for the disk")
    min_free_mb: int = Field(default=200, ge=0, description="free disk space below which no picture is written, MB")


class AuditSection(Section):
    """What makes a change of records show: the key that signs them, and how often (`lineside audit` verifies)."""

    key: str = Field(
        default="",
        description="Ed25519 private key file (`lineside recipe key FILE` makes one) that signs checkpoints of records and "
        "reviews; empty = not signed, and whoever can write the files can change them unnoticed",
    )
    checkpoint_s: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        allow_inf_nan=False,
        description="time between checkpoints while parts are judged, s",
    )


TimeOfDay = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class HmiSection(Section):
    """The pages for the people at the line: `lineside hmi`, a program of its own."""

    host: str = Field(
        default="127.0.0.1", min_length=1, max_length=253,
        description="address the pages are served on; any but this computer's own needs `tls_certificate` and `tls_key`",
    )  # fmt: skip
    port: int = Field(default=8420, ge=1, le=65535, description="port the pages are served on")
    language: Literal["en", "zh"] = Field(default="en", description="language until a person chooses another")
    shifts: tuple[TimeOfDay, ...] = Field(
        default=("06:00", "14:00", "22:00"), min_length=1, max_length=6,
        description="when each shift begins, HH:MM in local time, ascending",
    )  # fmt: skip
    review_ok_share: float = Field(
        default=0.0, ge=0, le=1, allow_inf_nan=False,
        description="share of the OK parts that is drawn for review, 0..1",
    )  # fmt: skip
    tls_certificate: str = Field(default="", description="PEM file of the certificate (with its chain); empty = no TLS")
    tls_key: str = Field(default="", description="PEM file of the certificate's private key")

    @field_validator("shifts")
    @classmethod
    def _ascending(cls, shifts: tuple[str, ...]) -> tuple[str, ...]:
        if any(later <= earlier for earlier, later in pairwise(shifts)):
            raise ValueError(f"{', '.join(shifts)} do not ascend; write them in the order of the day, each once")
        return shifts

    @model_validator(mode="after")
    def _safe_elsewhere(self) -> "HmiSection":
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key belong together: give both or none")
        if not self.tls_certificate and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host} can be reached from other computers, and passwords would go there in the clear: "
                "give tls_certificate and tls_key, or host 127.0.0.1"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this computer alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: where it leads is another's to say
        return False


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
        description="after a part asked for a recipe that fails its checks: keep = the old one stays in force, hold = no "
        "part is accepted until a good one was prepared; the part that asked is ERROR either way. A new version of the "
        "recipe in force, or one asked for by a person, that fails leaves the old one in force",
    )
    keep_warm_ms: int = Field(
        default=50, ge=0, le=10000, description="pause after which the idle detector rehearses, ms; 0 = never"
    )
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="port of the Prometheus text endpoint on 127.0.0.1; 0 = none"
    )
    evidence: EvidenceSection = Field(description="where pictures of inspected parts go")
    hmi: HmiSection = Field(default=HmiSection(), description="the pages for the people at the line")
    retention: RetentionSection = Field(
        default=RetentionSection(), description="which pictures are compressed or deleted; without it none is"
    )
    audit: AuditSection = Field(default=AuditSection(), description="what makes a change of records show")
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


def load_station(path: Path, *, hmi: Mapping[str, str] = MappingProxyType({})) -> StationConfig:
    """Read a station config; ConfigError listing every mistake.  Relative paths count from the file's folder.

    ``hmi`` are keys of [hmi] that count instead of the file's.
    """
    document = read_toml(path)
    written = document.get("hmi", {})
    if hmi and isinstance(written, dict):
        document["hmi"] = {**written, **hmi}
    config = checked(path, document, StationConfig)
    here = path.resolve().parent
    cameras = {name: _from_here(camera, here) for name, camera in config.cameras.items()}
    return config.model_copy(
        update={
            "recipe": str(here / config.recipe),
            "recipes": str(here / config.recipes) if config.recipes else "",
            "store": str(here / config.store),
            "evidence": config.evidence.model_copy(update={"folder": str(here / config.evidence.folder)}),
            "hmi": _hmi_from_here(config.hmi, here),
            "audit": _audit_from_here(config.audit, here),
            "cameras": cameras,
            "controller": _controller_from_here(config.controller, here),
            "publishers": {name: _files_from_here(publisher, here) for name, publisher in config.publishers.items()},
            "trusted_keys": tuple(str(here / key) for key in config.trusted_keys),
        }
    )


def _hmi_from_here(hmi: HmiSection, here: Path) -> HmiSection:
    files = {"tls_certificate": hmi.tls_certificate, "tls_key": hmi.tls_key}
    return hmi.model_copy(update={key: str(here / file) for key, file in files.items() if file})


def _audit_from_here(audit: AuditSection, here: Path) -> AuditSection:
    return audit.model_copy(update={"key": str(here / audit.key)}) if audit.key else audit


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
