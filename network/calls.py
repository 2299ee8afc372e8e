"""Calls of a server's members: authenticated on their bytes, read strictly, allowed by path, once.

A call comes as Syft signs it, or as a signed octet stream (`network.streams`); the same accounts,
paths, limits and memory stand before both.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from fastapi import HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool
from syft.client.api import SignedSyftAPICall, SyftAPICall, SyftAPIData
from syft.protocol.data_protocol import get_data_protocol
from syft.serde.serialize import _serialize
from syft.server.credentials import SyftSigningKey, SyftVerifyKey
from syft.server.server import Server
from syft.service.context import AuthedServiceContext
from syft.service.response import SyftError
from syft.service.service import UserServiceConfigRegistry
from syft.service.user.user_roles import ServiceRole
from syft.types.errors import SyftException
from syft.types.uid import UID

from network.answers import ASKED, KNOWN
from network.bodies import Bodies
from network.envelope import BytesRefused, Envelope, open_envelope
from network.limits import AtOnce, Limits, Rate
from network.members import Members
from network.parts import Content, Parts
from network.passwords import why_weak
from network.reader import read
from network.reader_names import OWNER, PLAIN
from network.refusals import refusal_of
from network.replay import ISSUED, CallMemory, CallRefused
from network.smpc.messages import OctetParts
from network.streams import (
    MAX_STREAM_BYTES,
    StreamCall,
    answer_parts,
    read_head,
    refusal_parts,
    sendable,
)

_CHANGING_MEMBERS = frozenset({"user.create", "user.update", "user.delete"})
_LISTED_AND_REFUSED = frozenset({"action.get"})
"""Syft's `asset.data` asks for this path and shows nothing when it is refused."""

_log = structlog.get_logger("coterie.gate")

Paths = Callable[[ServiceRole], frozenset[str]]


class Calls:
    """What stands between the bytes of a request and the Syft server.

    Args:
        server, paths_of, memory, node_key, limits, why_ended: see `network.gate.open_app`.
    """

    def __init__(
        self,
        server: Server,
        paths_of: Paths,
        memory: Path,
        node_key: SyftSigningKey,
        limits: Limits,
        why_ended: Callable[[str], str | None],
    ) -> None:
        self._server, self._paths_of = server, paths_of
        self._node_key = node_key
        self._calls = CallMemory(memory / "calls.db")
        self._members = Members(server, memory, limits, why_ended)
        self.addresses = Rate(limits.requests_per_s, limits.request_burst)
        self._accounts = Rate(limits.calls_per_s, limits.burst)
        self._at_once = AtOnce(limits.calls_at_once)
        self._methods = lru_cache(maxsize=16)(self._methods_of_role)
        self._services = lru_cache(maxsize=16)(UserServiceConfigRegistry.from_role)
        self._contexts = lru_cache(maxsize=256)(self._context_of)

    def answer(self, blob: bytes) -> Response:
        """Authenticate, read, allow and carry out one signed call."""
        envelope = open_envelope(blob)
        key, role = self._members.found(envelope.key.hex())
        over = self._begin(envelope.key.hex())
        try:
            return self._answer(envelope, key, role)
        finally:
            over()

    def _begin(self, account: str) -> Callable[[], None]:
        """Count a call of this account; gives what to call when it is over."""
        self._accounts.spend(account)
        return self._at_once.begin(account)

    def _answer(self, envelope: Envelope, key: SyftVerifyKey, role: ServiceRole) -> Response:
        is_owner = role.value >= ServiceRole.DATA_OWNER.value
        message = read(envelope.message, OWNER if is_owner else PLAIN)
        if not isinstance(message, SyftAPICall):
            raise BytesRefused("Expected a SyftAPICall inside the signed envelope.")
        try:
            self._check_allowed(message, role)
            remembered = self._calls.take(
                envelope.key, message.id.value.bytes, message.kwargs.pop(ISSUED, None)
            )
        except CallRefused as why:
            _log.info("refused", why=str(why), role=role.name)
            return _reply(self._signed(SyftError(message=str(why))))
        call = _VerifiedCall(
            credentials=key,
            serialized_message=envelope.message,
            signature=envelope.signature,
            cached_deseralized_message=message,
        )
        try:
            if message.path not in _CHANGING_MEMBERS:
                return self._carried_out(call)
            with self._members.changing():
                return self._carried_out(call)
        finally:
            remembered()

    def _carried_out(self, call: SignedSyftAPICall) -> Response:
        try:
            return _reply(self._signed(self._server.handle_api_call_with_unsigned_result(call)))
        except SyftException as error:
            return _reply(self._signed(SyftError.from_public_exception(error)))

    def admit(self, call: StreamCall) -> "_Admitted":
        """Allow a stream by its signed head, once.

        Raises:
            CallRefused: it isn't allowed, was taken before or comes too late.
        """
        key, role = self._members.found(call.key.hex())
        over = self._begin(call.key.hex())
        try:
            return self._admitted(call, key, role, over)
        except BaseException:
            over()
            raise

    def _admitted(
        self, call: StreamCall, key: SyftVerifyKey, role: ServiceRole, over: Callable[[], None]
    ) -> "_Admitted":
        self._check_allowed(_Question(_uid(call.server), call.path, call.arguments), role)
        remembered = self._calls.take(call.key, call.id, call.issued)
        return _Admitted(key, role, call.path, call.arguments, remembered, over)

    def answer_stream(self, admitted: "_Admitted", carried: Mapping[str, Any]) -> Parts:
        """Carry out an admitted stream with the octets that came after its head.

        Syft's own dispatch would look the account up twice more, which took three quarters of a
        small call's time; its table of what a role may call is asked all the same.
        """
        services = self._services(admitted.role)
        context = self._contexts(admitted.key, admitted.role)
        try:
            path = services.private_path_for(admitted.path)
            method = self._server.get_service_method(path)
            return answer_parts(method(context, **admitted.arguments, **carried))
        except SyftException as error:
            return refusal_parts(SyftError.from_public_exception(error).message)
        except (TypeError, LookupError, AttributeError) as error:
            _log.info("refused", why=type(error).__name__, path=admitted.path)
            return refusal_parts(f"{admitted.path} takes other arguments.")

    def _context_of(self, key: SyftVerifyKey, role: ServiceRole) -> AuthedServiceContext:
        return AuthedServiceContext(server=self._server, credentials=key, role=role)

    def _check_allowed(self, asked: "SyftAPICall | _Question", role: ServiceRole) -> None:
        why = self._why_not(asked, role)
        if why is not None:
            _log.info("refused", why=why, role=role.name)
            raise CallRefused(why)

    def _why_not(self, asked: "SyftAPICall | _Question", role: ServiceRole) -> str | None:
        if asked.server_uid != self._server.id:
            return "This call names another server; call that one directly."
        if asked.path not in self._paths_of(role):
            return refusal_of(asked.path, role.name)
        if not asked.blocking:
            return "Non-blocking calls need a job queue, which Coterie does not run. Call blocking."
        if asked.path in _CHANGING_MEMBERS:
            if asked.args:
                return f"Name the arguments of {asked.path}."
            password = asked.kwargs.get("password")
            if isinstance(password, str):
                return why_weak(password, str(asked.kwargs.get("email") or ""))
        return None

    def _signed(self, value: Any) -> Any:
        data = value.whole() if isinstance(value, OctetParts) else value
        return SyftAPIData(data=data).sign(self._node_key)

    def log_in(self, body: dict[str, Any], address: str) -> Response:
        return _reply(self._members.log_in(body, address))

    def methods_of(self, verify_key: str, protocol: str) -> Response:
        """The methods that a member's role may call: the same for all of that role."""
        key, role = self._members.found(verify_key)
        if protocol not in map(str, get_data_protocol().supported_protocols):
            raise HTTPException(422, "That communication protocol isn't one of the metadata's.")
        return self._methods(role, protocol, key)

    def _methods_of_role(self, role: ServiceRole, protocol: str, key: SyftVerifyKey) -> Response:
        api = self._server.get_api(key, protocol)
        allowed = self._paths_of(role) | _LISTED_AND_REFUSED
        api.endpoints = {p: e for p, e in api.endpoints.items() if e.service_path in allowed}
        api.lib_endpoints = {}
        return _reply(api)


@dataclass(frozen=True)
class _Question:
    """What a stream asks, as much of a Syft call as decides whether it is allowed.

    Making Syft's own takes a tenth of a small call's time.
    """

    server_uid: UID
    path: str
    kwargs: Mapping[str, Any]
    args: tuple[Any, ...] = ()
    blocking: bool = True


@dataclass(frozen=True)
class _Admitted:
    """A stream's call that may be carried out.

    Attributes:
        remembered: returns once it is on the disk that the call was taken.
        over: to be called when it is answered, or won't be.
    """

    key: SyftVerifyKey
    role: ServiceRole
    path: str
    arguments: Mapping[str, str | int]
    remembered: Callable[[], object]
    over: Callable[[], None]


class Streams:
    """ASGI endpoint of the signed octet streams; the path ends with the method's name."""

    def __init__(self, gate: Calls, bodies: Bodies) -> None:
        self._gate, self._bodies = gate, bodies

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        coming = ComingStream(self._gate, scope["path_params"]["method"])
        request = Request(scope, receive)
        try:
            async with self._bodies.of(request, MAX_STREAM_BYTES, coming.look) as blob:
                parts = await run_in_threadpool(coming.answer, blob, scope.get(ASKED))
        finally:
            coming.end()
        await send_parts(parts, send)


async def send_parts(parts: Parts, send: Callable[[Mapping[str, Any]], Awaitable[object]]) -> None:
    """Answer a request with parts, which the seal names."""
    size = str(len(parts)).encode()
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", size)]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    await send({**start, KNOWN: parts.known()})
    pieces = sendable(parts)
    for left, piece in enumerate(pieces, 1 - len(pieces)):
        await send({"type": "http.response.body", "body": piece, "more_body": left < 0})


class ComingStream:
    """One signed octet stream, from its head to its answer."""

    def __init__(self, gate: Calls, method: str) -> None:
        self._gate, self._method = gate, method
        self._call: StreamCall | None = None
        self._admitted: _Admitted | None = None
        self._refusal = ""

    async def look(self, begun: bytearray) -> None:
        """Admit a call before the first of its octets is taken; nothing is taken beyond them.

        A call without octets is admitted when it is answered.
        """
        if self._call is None:
            self._call = read_head(begun)
            if self._call is None:
                return
            if self._call.path != f"coterie.{self._method}":
                raise BytesRefused("The stream names another method than its address.")
            if self._call.octets:
                await run_in_threadpool(self._admit, self._call)
                if self._admitted is None:
                    raise HTTPException(403, self._refusal)
        if len(begun) > self._call.begin + self._call.octets:
            raise BytesRefused("The octets aren't those that were signed.")

    def _admit(self, call: StreamCall) -> None:
        try:
            self._admitted = self._gate.admit(call)
        except CallRefused as why:
            self._refusal = str(why)

    def end(self) -> None:
        if self._admitted is not None:
            self._admitted.over()

    def answer(self, blob: bytearray, asked: Content | None) -> Parts:
        """The call's answer; `asked` has digests of what came, if it came in parts."""
        if self._call is None:
            raise BytesRefused("The stream ends within its head.")
        if not self._call.octets:
            self._admit(self._call)
        if self._admitted is None:
            return refusal_parts(self._refusal)
        try:
            where = self._call.begin, self._call.octets
            digest = None if asked is None else asked.digest_of(*where)
            carried = self._call.carried_in(blob, digest)
            return self._gate.answer_stream(self._admitted, carried)
        finally:
            self._admitted.remembered()


class _VerifiedCall(SignedSyftAPICall):
    """A call whose signature was checked on its raw bytes, so that Syft needn't do it again."""

    __canonical_name__ = "CoterieVerifiedCall"
    __version__ = 1

    @property
    def is_valid(self) -> bool:
        return True


def _uid(text: str) -> UID:
    try:
        return UID(value=UUID(text))
    except ValueError:
        raise BytesRefused("The stream names no server.") from None


def _reply(value: Any) -> Response:
    return Response(_serialize(value, to_bytes=True), media_type="application/octet-stream")
