"""Records to an MQTT broker, quality of service 1; the station's state is retained there, OFFLINE when it is gone."""

import socket
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from inspection.errors import DriverMissing, PublisherError
from inspection.publishers import Message
from inspection.publishers.credentials import read_secret, tls_context

_TOPICS = {"record": "records", "late": "late", "gap": "gaps"}
_OFFLINE = "OFFLINE"


class MqttConfig(BaseModel):
    """Which broker, under which topics: PREFIX/STATION/records, late, gaps, and state (retained)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    FILES: ClassVar[tuple[str, ...]] = ("password_file", "ca_file", "cert_file", "key_file")

    kind: Literal["mqtt"] = "mqtt"
    host: str = Field(min_length=1, description="name or address of the broker")
    port: int = Field(default=1883, ge=1, le=65535, description="TCP port; with TLS usually 8883")
    prefix: str = Field(
        default="lineside", pattern=r"^[^+#/\s$][^+#\s]*$", max_length=200, description="beginning of every topic"
    )
    protocol: Literal["5", "3.1.1"] = Field(
        default="5", description="MQTT version; a broker of version 3.1.1 cannot say that it refused a message"
    )
    client_id: str = Field(
        default="", max_length=200, description="empty = lineside-STATION; one client only may have it"
    )
    user: str = Field(default="", description="user name, empty = none")
    password_file: str = Field(default="", description="file whose first line is the password")
    tls: bool = Field(default=False, description="encrypt, and check the broker's certificate and name")
    ca_file: str = Field(default="", description="PEM file of the authority, empty = the system's own")
    cert_file: str = Field(default="", description="PEM file of this station's certificate, where the broker wants one")
    key_file: str = Field(default="", description="PEM file of its key, empty = in cert_file")
    keepalive_s: int = Field(
        default=10, ge=2, le=3600, description="a silent connection is tried after so many seconds"
    )
    timeout_s: float = Field(default=5.0, ge=0.1, le=60, description="longest wait for a confirmation, seconds")
    in_flight: int = Field(default=20, ge=1, le=1000, description="messages that may wait for their confirmation")

    @model_validator(mode="after")
    def _complete(self) -> "MqttConfig":
        if not self.tls and (self.ca_file or self.cert_file or self.key_file):
            raise ValueError("certificates are given, but tls is off")
        if self.password_file and not self.user:
            raise ValueError("a password needs a user")
        return self


class MqttPublisher:
    """A connection to one broker.  It never reconnects by itself: the outbox does, with what was not confirmed."""

    def __init__(self, config: MqttConfig, *, station_id: str) -> None:
        try:
            import paho.mqtt.client  # noqa: F401
        except ImportError as error:
            raise DriverMissing(
                f"the publisher 'mqtt' needs paho-mqtt 2, which cannot be imported: {error}",
                fix='pip install "lineside[mqtt]"',
            ) from error
        self.config = config
        self._topic = f"{config.prefix}/{station_id}"
        self._client_id = config.client_id or f"lineside-{station_id}"
        self._client: Any = None
        self._session = _Session()
        self._shown = ""

    def open(self) -> None:
        """Connect and log in; PublisherError when that fails or takes too long."""
        self.close()
        self._session = _Session()
        client = self._made()
        self._client = client
        try:
            client.connect(self.config.host, self.config.port, keepalive=self.config.keepalive_s)
        except (OSError, ValueError) as error:
            raise self._failed(f"cannot be reached ({getattr(error, 'strerror', '') or error})") from None
        client.loop_start()
        self._session.wait(lambda session: session.connected, self.config.timeout_s)
        self._check("does not answer")

    def publish(self, messages: Sequence[Message]) -> None:
        """Send and wait for every confirmation; PublisherError when one does not come within the time limit."""
        self._send([(f"{self._topic}/{_TOPICS[one.kind]}", one.body) for one in messages], retain=False)

    def show_state(self, state: str) -> None:
        """Retain the state; PublisherError when the connection is gone, also when there is nothing new to say."""
        self._check("")
        if state != self._shown:
            self._send([(f"{self._topic}/state", state)], retain=True)
            self._shown = state

    def close(self) -> None:
        """Disconnect.  The broker lets its OFFLINE stand when the last state was another one."""
        client, self._client = self._client, None
        if client is None:
            return
        shown, self._shown = self._shown, ""
        if shown in ("", _OFFLINE):
            client.disconnect()  # a clean end: no will
        else:
            # Cut the line without a farewell: the broker then publishes the will.
            with suppress(OSError, AttributeError):
                client.socket().shutdown(socket.SHUT_RDWR)
        client.loop_stop()
        if (line := client.socket()) is not None:
            line.close()  # the library keeps it open when the broker refused the connection

    def _made(self) -> Any:
        import paho.mqtt.client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        config = self.config
        five = config.protocol == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=self._client_id, reconnect_on_failure=False,
            protocol=paho.MQTTv5 if five else paho.MQTTv311, clean_session=None if five else True,
        )  # fmt: skip
        client.connect_timeout = config.timeout_s
        client.max_inflight_messages_set(config.in_flight)
        client.will_set(f"{self._topic}/state", _OFFLINE, qos=1, retain=True)
        if config.user:
            password = read_secret(config.password_file, "password") if config.password_file else None
            client.username_pw_set(config.user, password)
        if config.tls:
            client.tls_set_context(tls_context(config.ca_file, config.cert_file, config.key_file))
        client.on_connect = self._session.on_connect
        client.on_connect_fail = self._session.on_connect_fail
        client.on_disconnect = self._session.on_disconnect
        client.on_publish = self._session.on_publish
        return client

    def _send(self, payloads: Sequence[tuple[str, str]], *, retain: bool) -> None:
        self._check("")
        sent: deque[int] = deque()
        for topic, payload in payloads:
            if len(sent) >= self.config.in_flight:
                self._confirmed(sent.popleft())
            sent.append(self._client.publish(topic, payload, qos=1, retain=retain).mid)
            # Without a connection the library queues in memory, says so by a code only, and would send it some day.
            self._check("")
        while sent:
            self._confirmed(sent.popleft())

    def _confirmed(self, message_id: int) -> None:
        self._session.wait(lambda session: message_id in session.confirmed, self.config.timeout_s)
        self._check("", message_id)

    def _check(self, silent: str, message_id: int | None = None) -> None:
        """PublisherError when the connection is gone, or what was waited for has not come."""
        session = self._session
        if self._client is None or session.trouble or not session.connected:
            raise self._failed(session.trouble or silent or "is not connected")
        if message_id is not None:
            if message_id not in session.confirmed:
                raise self._failed(f"did not confirm a message within {self.config.timeout_s:g} s")
            session.confirmed.discard(message_id)

    def _failed(self, how: str) -> PublisherError:
        return PublisherError(
            f"the MQTT broker {self.config.host} port {self.config.port} {how}",
            fix="check that the broker runs, address, user, password, certificates and rights on the topics",
        )


class _Session:
    """What the library's thread reports of one connection."""

    def __init__(self) -> None:
        self.connected = False
        self.trouble = ""
        self.confirmed: set[int] = set()
        self._changed = threading.Condition()

    def wait(self, arrived: Any, timeout_s: float) -> None:
        """Until ``arrived(session)`` or trouble, for at most ``timeout_s``."""
        deadline_s = monotonic() + timeout_s
        with self._changed:
            while not (self.trouble or arrived(self)) and (left_s := deadline_s - monotonic()) > 0:
                self._changed.wait(left_s)

    def on_connect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._changed:
            self.connected = not reason.is_failure
            self.trouble = f"refused the connection ({reason})" if reason.is_failure else ""
            self._changed.notify_all()

    def on_connect_fail(self, client: Any, userdata: Any) -> None:
        self._end("cannot be reached")

    def on_disconnect(self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._end(f"ended the connection ({reason})")

    def on_publish(self, client: Any, userdata: Any, message_id: int, reason: Any, properties: Any) -> None:
        with self._changed:
            if reason is not None and reason.is_failure:
                self.trouble = f"refused a message ({reason})"
            self.confirmed.add(message_id)
            self._changed.notify_all()

    def _end(self, how: str) -> None:
        with self._changed:
            self.connected = False
            self.trouble = self.trouble or how
            self._changed.notify_all()
