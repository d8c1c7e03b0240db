"""Writes deploy/configuration.md from the config models: `python -m tools.config_reference`."""

import sys
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from inspection.cameras.folder import FolderCameraConfig
from inspection.cameras.genicam import GenicamCameraConfig
from inspection.cameras.opencv import OpencvCameraConfig
from inspection.cameras.pylon import PylonCameraConfig
from inspection.cameras.simulated import CameraFault, SimulatedCameraConfig
from inspection.config import EvidenceSection, HmiSection, StationConfig
from inspection.controllers.modbus_client import ModbusClientConfig
from inspection.controllers.modbus_tcp import ModbusTcpConfig
from inspection.controllers.opcua.config import OpcUaConfig
from inspection.controllers.simulated import SimulatedControllerConfig
from inspection.controllers.tcp_text import TcpTextConfig
from inspection.publishers.folder import FolderConfig
from inspection.publishers.mqtt import MqttConfig
from inspection.publishers.postgres import PostgresConfig
from inspection.publishers.webhook import WebhookConfig
from inspection.recipe_config import QualitySection, Recipe, RegistrationSection, RoiSection, RuleSection, ViewSection
from inspection.retention.section import RetentionRule, RetentionSection
from inspection.serials import SerialSection

PAGE = Path(__file__).resolve().parent.parent / "deploy" / "configuration.md"
SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("recipe.toml", Recipe),
    ("recipe.toml [views.ROLE]", ViewSection),
    ("recipe.toml [views.ROLE.registration]", RegistrationSection),
    ("recipe.toml [views.ROLE.quality]", QualitySection),
    ("recipe.toml [[views.ROLE.rois]]", RoiSection),
    ("recipe.toml [[views.ROLE.rules]]", RuleSection),
    ("recipe.toml [serial]", SerialSection),
    ("station.toml", StationConfig),
    ("station.toml [evidence]", EvidenceSection),
    ("station.toml [hmi]", HmiSection),
    ("station.toml [retention]", RetentionSection),
    ("station.toml [[retention.rules]]", RetentionRule),
    ('station.toml [cameras.NAME], kind = "folder"', FolderCameraConfig),
    ('station.toml [cameras.NAME], kind = "genicam"', GenicamCameraConfig),
    ('station.toml [cameras.NAME], kind = "opencv"', OpencvCameraConfig),
    ('station.toml [cameras.NAME], kind = "pylon"', PylonCameraConfig),
    ('station.toml [cameras.NAME], kind = "simulated"', SimulatedCameraConfig),
    ("station.toml [[cameras.NAME.faults]]", CameraFault),
    ('station.toml [controller], kind = "modbus_tcp"', ModbusTcpConfig),
    ('station.toml [controller], kind = "opcua"', OpcUaConfig),
    ('station.toml [controller], kind = "modbus_client"', ModbusClientConfig),
    ('station.toml [controller], kind = "simulated"', SimulatedControllerConfig),
    ('station.toml [controller], kind = "tcp_text"', TcpTextConfig),
    ('station.toml [publishers.NAME], kind = "folder"', FolderConfig),
    ('station.toml [publishers.NAME], kind = "mqtt"', MqttConfig),
    ('station.toml [publishers.NAME], kind = "postgres"', PostgresConfig),
    ('station.toml [publishers.NAME], kind = "webhook"', WebhookConfig),
)
INTRODUCTION = """# Configuration reference

Written by `python -m tools.config_reference` from the models in `inspection/`; do not edit by hand.

A **recipe** is what a product needs and never names a device; a **station config** is what a machine needs and never names
a threshold. Unknown keys are refused; all mistakes are reported at once.
"""


def reference() -> str:
    """The page as Markdown."""
    parts = [INTRODUCTION]
    for title, model in SECTIONS:
        parts.append(f"\n## {title}\n\n| key | default | meaning |\n|---|---|---|\n")
        for name, field in model.model_fields.items():
            shown = field.default
            default = "see below" if isinstance(shown, BaseModel) else f"`{shown!r}`"
            default = "(required)" if shown is PydanticUndefined else default
            limits = ", ".join(filter(None, map(_limit, field.metadata)))
            text = (field.description or "a section of its own").rstrip(".")
            parts.append(f"| `{name}` | {default} | {text}{f' ({limits})' if limits else ''} |\n")
    return "".join(parts)


def _limit(bound: object) -> str:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "max_length": "at most this long:"}
    return ", ".join(
        f"{word} {getattr(bound, name)}" for name, word in words.items() if getattr(bound, name, None) is not None
    )


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    print(PAGE)
    sys.exit(0)
