"""Records to a web server, one POST each; what it answers with 2xx is confirmed."""

import hashlib
import hmac
from collections.abc import Sequence
from time import monotonic
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from inspection.errors import DriverMissing, PublisherError
from inspection.publishers import Message
from inspection.publishers.credentials import read_secret, tls_context

_MOST_ANSWER_BYTES = 65_536
_LATER = frozenset({408, 425, 429})  # the server asks for patience: nothing is wrong with the message


class WebhookConfig(BaseModel):
    """Which server, and how it knows the station."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    FILES: ClassVar[tuple[str, ...]] = ("token_file", "signing_key_file", "ca_file", "cert_file", "key_file")

    kind: Literal["webhook"] = "webhook"
    url: str = Field(max_length=2000, description="where to POST, http:// or https://, without user and password")
    token_file: str = Field(default="", description="file whose first line is sent as bearer token")
    signing_key_file: str = Field(
        default="", description="file whose first line is the key of the HMAC-SHA256 in the header Lineside-Signature"
    )
    ca_file: str = Field(default="", description="PEM file of the authority, empty = the system's own")
    cert_file: str = Field(default="", description="PEM file of this station's certificate, where the server wants one")
    key_file: str = Field(default="", description="PEM file of its key, empty = in cert_file")
    timeout_s: float = Field(default=10.0, ge=0.1, le=120, description="longest wait for an answer, seconds")
    environment_proxy: bool = Field(default=False, description="use the proxy that HTTP_PROXY and HTTPS_PROXY name")

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("give an address that begins with http:// or https://")
        if parts.username is not None or parts.password is not None:
            raise ValueError("no user or password in the address: put a token into token_file")
        return url


class WebhookPublisher:
    """POSTs each message as JSON, in order.

    Headers: ``Idempotency-Key`` (the record id; ``ID-late`` for a late result; ``STATION-gap-LAST`` for a gap),
    ``Lineside-Kind``, ``Lineside-Station``, ``Lineside-Sequence``, and where keys are given ``Authorization: Bearer`` and
    ``Lineside-Signature: sha256=HEX`` over the body.
    """

    def __init__(self, config: WebhookConfig, *, station_id: str) -> None:
        try:
            import httpx  # noqa: F401
        except ImportError as error:
            raise DriverMissing(
                f"the publisher 'webhook' needs httpx, which cannot be imported: {error}",
                fix='pip install "lineside[webhook]"',
            ) from error
        self.config = config
        self._station_id = station_id
        self._client: Any = None
        self._signing_key = b""
        parts = urlsplit(config.url)
        self._shown = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"  # no path, no query

    def open(self) -> None:
        """Read the secrets; the server is reached with the first message.  PublisherError for a file that is missing."""
        import httpx

        self.close()
        config = self.config
        headers = {"Content-Type": "application/json", "User-Agent": "lineside"}
        if config.token_file:
            headers["Authorization"] = f"Bearer {read_secret(config.token_file, 'token')}"
        self._signing_key = read_secret(config.signing_key_file, "key").encode() if config.signing_key_file else b""
        self._client = httpx.Client(
            headers=headers, timeout=config.timeout_s, trust_env=config.environment_proxy, follow_redirects=False,
            verify=tls_context(config.ca_file, config.cert_file, config.key_file),
        )  # fmt: skip

    def publish(self, messages: Sequence[Message]) -> None:
        """POST one after the other; PublisherError at the first that is not answered with 2xx in time."""
        for message in messages:
            self._post(message)

    def show_state(self, state: str) -> None:
        """Nothing to do: a web server has no place for it."""

    def close(self) -> None:
        """End the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _post(self, message: Message) -> None:
        import httpx

        if self._client is None:
            raise self._failed("is not connected")
        body = message.body.encode()
        try:
            with self._client.stream(
                "POST", self.config.url, content=body, headers=self._headers(message, body)
            ) as reply:
                self._read_off(reply)
                status = int(reply.status_code)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # The library's text may hold the whole address, and with it a token in the query.
            raise self._failed(f"cannot be reached or does not answer ({type(error).__name__})") from None
        if not 200 <= status < 300:
            raise self._refused(status, message)

    def _headers(self, message: Message, body: bytes) -> dict[str, str]:
        keys = {
            "record": message.key,
            "late": f"{message.key}-late",
            "gap": f"{self._station_id}-gap-{message.sequence}",
        }
        headers = {
            "Idempotency-Key": keys[message.kind], "Lineside-Kind": message.kind, "Lineside-Station": self._station_id,
            "Lineside-Sequence": str(message.sequence),
        }  # fmt: skip
        if self._signing_key:
            headers["Lineside-Signature"] = "sha256=" + hmac.new(self._signing_key, body, hashlib.sha256).hexdigest()
        return headers

    def _read_off(self, reply: Any) -> None:
        """Read the answer's text, which nobody needs, so that the connection can be used again; within bounds."""
        deadline_s, size = monotonic() + self.config.timeout_s, 0
        for piece in reply.iter_raw():
            size += len(piece)
            if size > _MOST_ANSWER_BYTES or monotonic() > deadline_s:
                return

    def _refused(self, status: int, message: Message) -> PublisherError:
        if status in _LATER or status >= 500:
            return self._failed(f"answered {status}")
        return PublisherError(
            f"the web server {self._shown} refuses {message.kind} {message.key or message.sequence} with status {status}; "
            "nothing behind it can be told until it is taken",
            fix="correct the address, the token or the server; it is offered again and again, never skipped",
        )

    def _failed(self, how: str) -> PublisherError:
        return PublisherError(
            f"the web server {self._shown} {how}", fix="check that the server runs, its address and its certificate"
        )
