"""asyncua's server with a door.

As delivered (2.1) it lets a connection call methods before it has logged in, over a channel without encryption even
where encryption is asked for, and hands a session to any connection that guesses its number.  Here a session must be
activated on its own connection, everything but the question for endpoints needs the security that is configured, and
what a connection may send is bounded.
"""

from typing import TYPE_CHECKING, Any

from inspection.controllers.opcua.config import OpcUaConfig
from inspection.controllers.opcua.nodes import opcua_types
from inspection.controllers.opcua.security import Doorman, Trusted
from inspection.log import event

if TYPE_CHECKING:
    from asyncua.server.server import Server

MOST_CONNECTIONS = 100
LOGIN_WITHIN_S = 10.0
MOST_UNREAD_BYTES = 1 << 20
_CHUNK_BYTES = 65535
_MESSAGE_BYTES = 1 << 20


class Users:
    """asyncua's user manager: who is allowed in, by name and password or without."""

    def __init__(self, config: OpcUaConfig, doorman: Doorman) -> None:
        self._config = config
        self._doorman = doorman

    def get_user(
        self, _server: Any, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> Any:
        """The user's role, or None: refused."""
        from asyncua.crypto.permission_rules import User, UserRole

        encrypted = certificate is not None or not self._config.encrypted
        named = bool(username)
        admitted = self._doorman.admits(username, password) if named else self._config.anonymous
        if not (encrypted and admitted):
            event("controller.login_refused", user=username or "(anonymous)")
            return None
        return User(role=UserRole.User, name=username or "anonymous")


def guarded_server(config: OpcUaConfig, doorman: Doorman, trusted: Trusted | None) -> "Server":
    """An asyncua server that is not initialised yet.  ``trusted`` None: certificates are not asked for."""
    from asyncua.server.binary_server_asyncio import BinaryServer
    from asyncua.server.internal_server import InternalServer
    from asyncua.server.server import Server

    ua, protocol = opcua_types(), _protocol(config.encrypted)

    class Door(BinaryServer):
        def _make_protocol(self) -> Any:
            return protocol(self.iserver, self._policies, self.clients, self.closing_tasks, self.limits)

    class GuardedServer(Server):
        async def start(self) -> None:
            await self._setup_server_nodes()
            if trusted is not None:
                for policy in self._policies:
                    _demand_trust(policy, trusted)
            self.bserver = Door(self.iserver, config.host, config.port, self.limits)
            self.bserver.set_policies(self._policies)
            await self.bserver.start()  # first of all: a taken port leaves nothing running
            await self.iserver.start()

    users: Any = Users(config, doorman)
    inner = InternalServer(user_manager=users)
    inner.allow_remote_admin = False
    inner.max_connections = MOST_CONNECTIONS
    inner.max_pending_activation_seconds = LOGIN_WITHIN_S
    inner.max_subscriptions = MOST_CONNECTIONS
    server = GuardedServer(iserver=inner)
    anonymous = [ua.AnonymousIdentityToken] if config.anonymous else []
    server.set_identity_tokens([ua.UserNameIdentityToken, *anonymous])
    server.limits.max_recv_buffer = server.limits.max_send_buffer = _CHUNK_BYTES
    server.limits.max_message_size = _MESSAGE_BYTES
    server.limits.max_chunk_count = _MESSAGE_BYTES // _CHUNK_BYTES + 1
    policy = ua.SecurityPolicyType
    server.set_security_policy([policy.Basic256Sha256_SignAndEncrypt if config.encrypted else policy.NoSecurity])
    return server


def _demand_trust(policy: Any, trusted: Trusted) -> None:
    """Let the factory of secure channels make one only for a client certificate that is trusted."""
    ua, create = opcua_types(), policy.create

    def checked(peer_certificate: bytes | None) -> Any:
        if peer_certificate is None or not trusted.holds(peer_certificate):
            raise ua.uaerrors.BadUserAccessDenied  # the connection is closed
        return create(peer_certificate)

    policy.create = checked


def _dialogue(encrypted: bool) -> Any:
    """The class that answers the requests of one connection."""
    from asyncua.common.utils import ServiceError
    from asyncua.server.uaprocessor import UaProcessor

    ua = opcua_types()
    kinds, codes = ua.ObjectIds, ua.StatusCodes
    asking = {kinds.GetEndpointsRequest_Encoding_DefaultBinary, kinds.FindServersRequest_Encoding_DefaultBinary}
    opening = {
        kinds.CreateSessionRequest_Encoding_DefaultBinary,
        kinds.CloseSessionRequest_Encoding_DefaultBinary,
        kinds.CloseSecureChannelRequest_Encoding_DefaultBinary,
    }
    activating = kinds.ActivateSessionRequest_Encoding_DefaultBinary

    class GuardedDialogue(UaProcessor):
        async def _process_message(self, typeid: Any, requesthdr: Any, seqhdr: Any, body: Any) -> Any:
            refusal = self._refusal(typeid)
            if refusal is not None:
                raise ServiceError(refusal)
            return await super()._process_message(typeid, requesthdr, seqhdr, body)  # type: ignore[no-untyped-call]

        def _refusal(self, typeid: Any) -> int | None:
            kind = typeid.Identifier if typeid.NamespaceIndex == 0 else None
            if kind in asking:
                return None
            if encrypted and self._connection.security_policy.Mode != ua.MessageSecurityMode.SignAndEncrypt:
                return int(codes.BadSecurityModeRejected)
            if kind in opening:
                return None
            if self.session is None:
                return int(codes.BadSessionIdInvalid)  # also for a session of another connection
            if kind != activating and not self.session.is_activated():
                return int(codes.BadSessionNotActivated)
            return None

    return GuardedDialogue


def _protocol(encrypted: bool) -> Any:
    """The class of connections."""
    from asyncua.server.binary_server_asyncio import OPCUAProtocol

    dialogue = _dialogue(encrypted)

    class GuardedConnection(OPCUAProtocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if self.processor is not None:
                self.processor = dialogue(self.iserver, transport, self.limits)
                self.processor.set_policies(self.policies)

        def data_received(self, data: bytes) -> None:
            if len(self._buffer) + len(data) > MOST_UNREAD_BYTES:
                event("controller.too_much_sent", peer=str(self.peer_name))
                if self.transport is not None:
                    self.transport.abort()
                self._buffer = b""
                return
            super().data_received(data)

    return GuardedConnection
