"""Publishers: they are told of each record after it was committed.  One file each, found by name in ``PUBLISHERS``.

A new publisher is one file here, one line in the table, one line in ``tests/contracts/test_publishers.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

PUBLISHERS = {
    "folder": "inspection.publishers.folder:FolderPublisher",
    "mqtt": "inspection.publishers.mqtt:MqttPublisher",
    "postgres": "inspection.publishers.postgres:PostgresPublisher",
    "webhook": "inspection.publishers.webhook:WebhookPublisher",
}


@dataclass(frozen=True, slots=True)
class Message:
    """One line of the outbox.

    ``key`` is the record id (empty for a gap): a receiver that sees a key of the same kind twice has one and the same
    message.  ``body`` is JSON: a record, the late result of one (``record_id``, ``late``), or the gap that a full outbox
    tore (``first_sequence``, ``last_sequence``).
    """

    sequence: int
    kind: Literal["record", "late", "gap"]
    key: str
    body: str


class Publisher(Protocol):
    """Tells one receiver of records, at least once and in order.  Called by one thread only, its own.

    ``open`` connects; ``publish`` returns when the receiver has confirmed every message, within a bounded time.  Both
    raise PublisherError otherwise: the outbox then closes the publisher, opens it again after a pause and offers the same
    messages once more.  ``show_state`` tells what the station says of itself (an OPC 40100-1 name, or Offline at a clean
    end), where the receiver has a place for that.  ``close`` may be called more than once.
    """

    def open(self) -> None: ...

    def publish(self, messages: Sequence[Message]) -> None: ...

    def show_state(self, state: str) -> None: ...

    def close(self) -> None: ...
