"""Where the OPC UA server listens and whom it lets in."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class OpcUaConfig(BaseModel):
    """Where the station listens for the PLC, as what, and whom it lets in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["opcua"] = "opcua"
    host: Annotated[
        str, Field(min_length=1, description="Address to listen on; 127.0.0.1 = this machine only, 0.0.0.0 = all.")
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535, description="TCP port, 1..65535; below 1024 needs privileges.")] = 4840
    path: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9._/-]*$", max_length=64, description="Path in the endpoint URL.")
    ] = "lineside"
    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=32, description="Name of the VisionSystem object."),
    ] = "Lineside"
    security: Annotated[
        Literal["none", "sign_and_encrypt"],
        Field(description="none = plain text; sign_and_encrypt = Basic256Sha256 with certificates on both sides."),
    ] = "none"
    users: Annotated[
        str, Field(description="File of users and password hashes; empty = nobody logs in by password.")
    ] = ""
    certificates: Annotated[
        str,
        Field(
            min_length=1,
            description="Folder of the server's key and certificate (made on first start) and of trusted/ clients.",
        ),
    ] = "opcua-certificates"
    allow_anonymous: Annotated[
        bool,
        Field(description="Let clients in without user name; on 127.0.0.1 without security and users they always are."),
    ] = False
    heartbeat_ms: Annotated[
        int, Field(ge=50, le=10_000, description="The station's heartbeat counts up once in so many ms, 50..10000.")
    ] = 500

    @model_validator(mode="after")
    def _somebody_may_enter(self) -> "OpcUaConfig":
        if not (self.users or self.anonymous):
            raise ValueError(
                "nobody could log in: name a users file, or set allow_anonymous = true if anyone who reaches this port "
                "may start jobs"
            )
        return self

    @property
    def loopback(self) -> bool:
        """Whether only programs of this machine can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def anonymous(self) -> bool:
        """Whether a client may come without user name."""
        return self.allow_anonymous or (self.security == "none" and self.loopback and not self.users)

    @property
    def encrypted(self) -> bool:
        """Whether every session must be signed and encrypted."""
        return self.security == "sign_and_encrypt"

    @property
    def endpoint(self) -> str:
        """The URL that clients are given."""
        return f"opc.tcp://{self.host}:{self.port}/{self.path}"

    def from_folder(self, folder: Path) -> "OpcUaConfig":
        """With relative paths counted from ``folder``."""
        users = str(folder / self.users) if self.users else ""
        return self.model_copy(update={"users": users, "certificates": str(folder / self.certificates)})
