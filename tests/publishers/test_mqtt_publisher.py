"""The MQTT publisher with a real mosquitto: certificates, passwords, rights, and the state it leaves behind."""

import gc
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from receivers import SECRET, Mosquitto, make_certificates, message, open_store, until

from inspection.errors import PublisherError
from inspection.outbox import Outbox
from inspection.publishers.mqtt import MqttConfig, MqttPublisher


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    made = Mosquitto(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that wants TLS and a password, and lets its user write below lineside/ only."""
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto_passwd is missing: apt-get install -y mosquitto")
    ca, certificate, key = make_certificates(tmp_path)
    passwords, rights = tmp_path / "passwords", tmp_path / "rights"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "line", SECRET], check=True, capture_output=True)
    rights.write_text("user line\ntopic write lineside/#\n")
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    settings = (
        f"allow_anonymous false\npassword_file {passwords}\nacl_file {rights}\ncertfile {certificate}\nkeyfile {key}\n"
    )
    config = {"tls": True, "ca_file": str(ca), "user": "line", "password_file": str(secret)}
    made = Mosquitto(tmp_path, settings=settings, config=config)
    try:
        made.start()
        yield made
    finally:
        made.close()


def failure(config: MqttConfig) -> str:
    publisher = MqttPublisher(config, station_id="st1")
    try:
        with pytest.raises(PublisherError) as raised:
            publisher.open()
        return str(raised.value)
    finally:
        publisher.close()


def test_records_travel_encrypted_with_a_password(secured: Mosquitto) -> None:
    """TLS with an authority of the plant's own, user and password from a file."""
    publisher = MqttPublisher(secured.config(), station_id="st1")
    publisher.open()
    publisher.publish([message(number) for number in range(100)])
    publisher.close()
    until(lambda: len(secured.arrived()) == 100)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # paho leaves such sockets to the collector
def test_a_broker_that_cannot_show_its_certificate_gets_nothing(secured: Mosquitto) -> None:
    """Without the authority's file a certificate of the plant's own is not trusted."""
    text = failure(secured.config(ca_file=""))
    gc.collect()
    assert "certificate" in text.lower()


def test_a_wrong_password_is_named_without_being_shown(secured: Mosquitto, tmp_path: Path) -> None:
    """The error says that the broker refused, not what was sent."""
    wrong = tmp_path / "wrong"
    wrong.write_text(f"{SECRET}-wrong\n")
    text = failure(secured.config(password_file=str(wrong)))
    assert "refused the connection" in text
    assert SECRET not in text


def test_a_missing_password_file_is_named(secured: Mosquitto) -> None:
    """Not the broker is wrong, but the file."""
    assert "nowhere" in failure(secured.config(password_file="/nowhere"))


def test_a_key_that_is_no_key_is_named(secured: Mosquitto, tmp_path: Path) -> None:
    """A file that holds no certificate is an error with its name, not a question on the terminal."""
    assert "secret" in failure(secured.config(cert_file=str(tmp_path / "secret")))


def test_a_message_that_the_broker_refuses_is_an_error(secured: Mosquitto) -> None:
    """A broker without the right for the topic says so with MQTT 5; the message does not count as told."""
    publisher = MqttPublisher(secured.config(prefix="elsewhere"), station_id="st1")
    publisher.open()
    with pytest.raises(PublisherError, match="refused a message"):
        publisher.publish([message(1)])
    publisher.close()


def test_an_old_broker_is_served_too(broker: Mosquitto) -> None:
    """MQTT 3.1.1 works the same way."""
    publisher = MqttPublisher(broker.config(protocol="3.1.1"), station_id="st1")
    publisher.open()
    publisher.publish([message(number) for number in range(50)])
    publisher.close()
    until(lambda: len(broker.arrived()) == 50)


def test_the_state_is_retained_and_offline_at_a_clean_end(broker: Mosquitto, tmp_path: Path) -> None:
    """Who subscribes later knows the state; a station that was stopped says Offline."""
    store = open_store(tmp_path / "records.sqlite")
    outbox = Outbox(store.path, {"plant": broker.config()}, station_id="st1")
    outbox.show_state("INITIALIZED")
    outbox.open()
    until(lambda: broker.states()[-1:] == ["INITIALIZED"])
    outbox.show_state("READY")
    until(lambda: broker.states()[-1:] == ["READY"])
    outbox.close(timeout_s=10)
    until(lambda: broker.states()[-1:] == ["OFFLINE"])
    store.close()


def test_a_station_that_dies_is_offline(broker: Mosquitto) -> None:
    """The broker publishes OFFLINE by itself when the connection ends without a farewell."""
    publisher = MqttPublisher(broker.config(), station_id="st1")
    publisher.open()
    publisher.show_state("READY")
    until(lambda: broker.states()[-1:] == ["READY"])
    publisher.close()  # without having shown Offline: as after a failure
    until(lambda: broker.states()[-1:] == ["OFFLINE"])


def test_an_idle_publisher_comes_back_after_the_broker(broker: Mosquitto, tmp_path: Path) -> None:
    """With nothing to tell, a lost broker is noticed all the same, and learns the state when it is back."""
    store = open_store(tmp_path / "records.sqlite")
    outbox = Outbox(store.path, {"plant": broker.config()}, station_id="st1")
    outbox.show_state("READY")
    outbox.open()
    try:
        until(lambda: broker.states()[-1:] == ["READY"])
        broker.kill()
        until(lambda: not outbox.status()["plant"].connected)
        broker.start()
        until(lambda: outbox.status()["plant"].connected)
        until(lambda: broker.states()[-1:] == ["READY"] and len(broker.states()) > 1)
    finally:
        outbox.close()
        store.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"ca_file": "ca.pem"},
        {"password_file": "pw"},
        {"prefix": "a/#"},
        {"prefix": ""},
        {"host": ""},
        {"keepalive_s": 0},
        {"password": SECRET},
    ],
)
def test_a_wrong_config_is_refused(wrong: dict[str, Any]) -> None:
    """Contradictions, wild cards and passwords in the config do not pass."""
    with pytest.raises(ValidationError):
        MqttConfig(**{"host": "broker", **wrong})
