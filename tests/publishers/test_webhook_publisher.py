"""The webhook publisher with a real server: what it sends, and what it takes for an answer."""

import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from receivers import SECRET, WebServer, fill, free_port, gap_message, late_message, message, open_store, until

from inspection.errors import PublisherError
from inspection.outbox import Outbox
from inspection.publishers.webhook import WebhookConfig, WebhookPublisher


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WebServer]:
    made = WebServer(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    return path


def publish(config: WebhookConfig, *messages: Any) -> None:
    publisher = WebhookPublisher(config, station_id="st1")
    publisher.open()
    try:
        publisher.publish(messages)
    finally:
        publisher.close()


def test_each_message_has_a_key_of_its_own(server: WebServer) -> None:
    """A record and its late result are told apart by their keys, and gaps of two stations too."""
    publish(server.config(), message(1), late_message(2, of=1), gap_message(3, 9))
    keys = [request["headers"]["idempotency-key"] for request in server.requests()]
    assert ["r000001", "r000001-late", "st1-gap-9"] == keys
    assert {"st1"} == {request["headers"]["lineside-station"] for request in server.requests()}
    assert ["1", "2", "9"] == [request["headers"]["lineside-sequence"] for request in server.requests()]
    assert message(1).body == server.requests()[0]["body"]


def test_the_token_and_the_signature_are_sent(server: WebServer, secret: Path) -> None:
    """The server can make sure who sent a record and that nobody changed it."""
    publish(server.config(token_file=str(secret), signing_key_file=str(secret)), message(1))
    (request,) = server.requests()
    expected = hmac.new(SECRET.encode(), request["body"].encode(), hashlib.sha256).hexdigest()
    assert f"Bearer {SECRET}" == request["headers"]["authorization"]
    assert f"sha256={expected}" == request["headers"]["lineside-signature"]


@pytest.mark.parametrize(("status", "word"), [(400, "refuses"), (401, "refuses"), (302, "refuses"), (503, "answered"),
                                              (429, "answered"), (408, "answered")])  # fmt: skip
def test_only_2xx_is_a_confirmation(server: WebServer, secret: Path, status: int, word: str) -> None:
    """Every other answer is an error that names the status and no secret."""
    server.answer(status)
    with pytest.raises(PublisherError) as raised:
        publish(server.config(token_file=str(secret)), message(1))
    text = str(raised.value)
    assert f"{status}" in text
    assert word in text
    assert SECRET not in text
    assert "hidden" not in text  # the query of the address


@pytest.mark.parametrize("status", [400, 503])
def test_a_refused_record_blocks_and_is_never_skipped(server: WebServer, tmp_path: Path, status: int) -> None:
    """The record is offered until it is taken; those before it are told once or twice, those after it wait."""
    server.answer(status, "r000050")
    store = open_store(tmp_path / "records.sqlite")
    fill(store, range(100))
    outbox = Outbox(store.path, {"plant": server.config()}, station_id="st1")
    outbox.open()
    try:
        until(lambda: sum(one["headers"]["idempotency-key"] == "r000050" for one in server.requests()) >= 3)
        until(lambda: outbox.status()["plant"].waiting == 50)
        assert 50 == len(set(server.arrived()))
        until(lambda: str(status) in outbox.status()["plant"].last_error)
        assert len(server.arrived()) <= 200  # not all of them again with every try
        server.answer(200)
        until(lambda: len(set(server.arrived())) == 100)
        until(lambda: outbox.status()["plant"].waiting == 0)
    finally:
        outbox.close()
        store.close()


def test_a_proxy_of_the_environment_is_not_used(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records go to the server that the config names, unless the config says otherwise."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    publish(server.config(), message(1))
    assert [("record", "r000001")] == server.arrived()
    with pytest.raises(PublisherError):
        publish(server.config(environment_proxy=True), message(2))


def test_a_missing_token_file_is_named(server: WebServer) -> None:
    """Nothing is sent without the token that the config asks for."""
    with pytest.raises(PublisherError, match="nowhere"):
        publish(server.config(token_file="/nowhere"), message(1))
    assert [] == server.requests()


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://server/"},
        {"url": "server"},
        {"url": f"http://line:{SECRET}@server/"},
        {"timeout_s": 0},
        {"token": SECRET},
    ],
)
def test_a_wrong_config_is_refused(wrong: dict[str, Any]) -> None:
    """Other protocols, passwords in the address and tokens in the config do not pass."""
    with pytest.raises(ValidationError):
        WebhookConfig(**{"url": "http://server/", **wrong})
