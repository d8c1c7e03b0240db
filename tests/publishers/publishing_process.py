"""An outbox with one publisher until it is killed: `publishing_process.py STORE KIND CONFIG_JSON`."""

import sys
import time
from pathlib import Path

from inspection.outbox import Outbox
from inspection.publishers.folder import FolderConfig
from inspection.publishers.mqtt import MqttConfig
from inspection.publishers.postgres import PostgresConfig
from inspection.publishers.webhook import WebhookConfig

SECTIONS = {"folder": FolderConfig, "mqtt": MqttConfig, "postgres": PostgresConfig, "webhook": WebhookConfig}

outbox = Outbox(Path(sys.argv[1]), {"plant": SECTIONS[sys.argv[2]].model_validate_json(sys.argv[3])}, station_id="st1")
outbox.open()
print("open", flush=True)
while True:
    outbox.notify()
    time.sleep(0.05)
