"""The byte boundary of every Coterie process that speaks Syft.

syft 0.9.5 deserialises a call before it verifies it, accepts undeclared fields and resolves type
names into live attributes, which together let anyone who reaches the port run code. Here a call is
authenticated on its raw bytes first, then read by a strict reader, then allowed or refused by the
path it names. Nodes, the hub and clients all pass their bytes through this module.
"""

import json
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import structlog
import syft.serde.recursive as syft_reader
from fastapi import FastAPI, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool
from syft.client.api import SignedSyftAPICall, SyftAPICall, SyftAPIData
from syft.serde.deserialize import _deserialize
from syft.serde.recursive_primitives import deserialize_generic_alias
from syft.serde.serialize import _serialize
from syft.server.credentials import SyftVerifyKey, UserLoginCredentials
from syft.server.server import Server
from syft.service.context import UnauthedServiceContext
from syft.service.metadata.server_metadata import ServerMetadataJSON
from syft.service.response import SyftError
from syft.service.user.user_roles import ServiceRole
from syft.types.errors import SyftException
from syft.types.syft_object_registry import SyftObjectRegistry

from network.envelope import MAX_MESSAGE_BYTES, BytesRefused, open_envelope

API = "/api/v2"
_PLAIN_NAMES = frozenset(
    {
        "NoneType", "bool", "bytes", "dict", "float", "int", "list", "str", "tuple",
        "numpy_ndarray", "UID", "LineageID", "SyftAPICall", "SyftVerifyKey",
        "nacl_signing_VerifyKey",
    }
)  # fmt: skip
_readable_names: ContextVar[frozenset[str] | None] = ContextVar("readable_names", default=None)
_log = structlog.get_logger("coterie.gate")


_original_reader = syft_reader.rs_proto2object


def _read_strictly(proto: Any) -> Any:
    """Refuse undeclared fields and, for callers below owner, every name but plain values."""
    name, readable = proto.canonicalName, _readable_names.get()
    if readable is not None and name not in readable:
        raise BytesRefused(f"'{name}' may not be sent here; send plain values and arrays.")
    if SyftObjectRegistry.has_serde_class(name, proto.version):
        declared = SyftObjectRegistry.get_serde_properties(name, proto.version)[3]
        undeclared = {f for f in proto.fieldsName if f} - set(declared or ())
        if declared is not None and undeclared:
            raise BytesRefused(f"'{name}' has undeclared fields.")
    return _original_reader(proto)


def _typing_alias(blob: bytes) -> Any:
    """Rebuild `typing` generics by subscription only: nothing is called, nothing else resolved."""
    parts = _deserialize(blob, from_bytes=True)
    module, _, name = str(parts.get("path", "")).rpartition(".")
    arguments = parts.get("__args__")
    if module in ("types", "builtins") and name in ("GenericAlias", "list", "dict", "tuple", "set"):
        return parts["__origin__"][arguments]
    if module != "typing" or name not in typing.__all__ or not isinstance(arguments, tuple):
        raise BytesRefused(f"The type '{module}.{name}' may not be named in a message.")
    constructor = getattr(typing, name)
    return constructor[arguments[0] if constructor is typing.Optional else arguments]


def install_strict_reader() -> None:
    """Make this process read every Syft message strictly; safe to call more than once."""
    syft_reader.rs_proto2object = _read_strictly
    registry = SyftObjectRegistry.__object_serialization_registry__
    for versions in registry.values():
        for version, properties in versions.items():
            if properties[2] is deserialize_generic_alias:
                versions[version] = (*properties[:2], _typing_alias, *properties[3:])


@contextmanager
def plain_values_only() -> Iterator[None]:
    """Within the block only plain values, ids and numeric arrays can be read from bytes."""
    token = _readable_names.set(_PLAIN_NAMES)
    try:
        yield
    finally:
        _readable_names.reset(token)


def open_app(server: Server, paths_of: Callable[[ServiceRole], frozenset[str]]) -> FastAPI:
    """The HTTP face of a node or hub: metadata, login, a member's method list and signed calls.

    Sign-up, password reset, streams and CORS are absent on purpose.

    Args:
        server: the Syft server behind the boundary.
        paths_of: the service paths that a role may call; everything else is refused unread.
    """
    install_strict_reader()
    app = FastAPI(title=server.name, docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def close_headers(request: Request, proceed: Callable) -> Response:
        response: Response = await proceed(request)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response

    @app.exception_handler(BytesRefused)
    async def refuse(_: Request, error: BytesRefused) -> Response:
        _log.warning("refused", why=str(error))
        return Response(str(error), status_code=400, media_type="text/plain")

    @app.get(f"{API}/")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(f"{API}/metadata")
    def metadata() -> Any:
        return server.metadata.to(ServerMetadataJSON)

    @app.post(f"{API}/login")
    async def login(request: Request) -> Response:
        body = await _json_body(request)
        return await run_in_threadpool(_login, server, body)

    @app.get(f"{API}/api")
    def methods(verify_key: str, communication_protocol: str) -> Response:
        key = _member_key(server, verify_key)
        return _reply(server.get_api(key, communication_protocol))

    @app.post(f"{API}/api_call")
    async def call(request: Request) -> Response:
        blob = await _bounded_body(request, MAX_MESSAGE_BYTES)
        return await run_in_threadpool(_answer, server, blob, paths_of)

    return app


def _answer(
    server: Server, blob: bytes, paths_of: Callable[[ServiceRole], frozenset[str]]
) -> Response:
    envelope = open_envelope(blob)
    key = _member_key(server, envelope.key.hex())
    role = server.get_role_for_credentials(key)
    if role.value >= ServiceRole.DATA_OWNER.value:
        message = _deserialize(envelope.message, from_bytes=True)
    else:
        with plain_values_only():
            message = _deserialize(envelope.message, from_bytes=True)
    if not isinstance(message, SyftAPICall):
        raise BytesRefused("Expected a SyftAPICall inside the signed envelope.")
    if message.server_uid != server.id:
        return _refusal(server, "This call names another server; call that one directly.")
    if message.path not in paths_of(role):
        return _refusal(
            server,
            f"'{message.path}' is not served here to a {role.name.lower()}. Coterie computes only "
            "approved plans: see `coterie plan --help`.",
        )
    if not message.blocking:
        return _refusal(server, "Non-blocking calls need a job queue, which Coterie does not run.")
    call = SignedSyftAPICall(
        credentials=key,
        serialized_message=envelope.message,
        signature=envelope.signature,
        cached_deseralized_message=message,
    )
    try:
        return _reply(server.handle_api_call(call))
    except SyftException as error:
        return _reply(_signed(server, SyftError.from_public_exception(error)))


def _refusal(server: Server, why: str) -> Response:
    _log.info("refused", why=why)
    return _reply(_signed(server, SyftError(message=why)))


def _signed(server: Server, value: Any) -> Any:
    return SyftAPIData(data=value).sign(server.signing_key)


def _member_key(server: Server, key: str) -> SyftVerifyKey:
    try:
        verify_key = SyftVerifyKey.from_string(key)
    except Exception:
        raise HTTPException(401, "Not an Ed25519 key.") from None
    if not server.services.user.stash.verify_key_exists(verify_key).unwrap():
        raise HTTPException(401, "This key has no account here. Ask the owner for an invitation.")
    return verify_key


def _login(server: Server, body: dict[str, Any]) -> Response:
    email, password = body.get("email"), body.get("password")
    if not isinstance(email, str) or not isinstance(password, str):
        raise HTTPException(422, "Send email and password as text.")
    credentials = UserLoginCredentials(email=email, password=password)
    context = UnauthedServiceContext(server=server, login_credentials=credentials)
    try:
        return _reply(server.services.user.exchange_credentials(context=context).value)
    except SyftException:
        _log.warning("login refused")
        return _reply(SyftError(message="Wrong email or password."))


def _reply(value: Any) -> Response:
    return Response(_serialize(value, to_bytes=True), media_type="application/octet-stream")


async def _bounded_body(request: Request, limit: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise HTTPException(413, f"At most {limit} bytes.")
        parts.append(part)
    return b"".join(parts)


async def _json_body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await _bounded_body(request, 4096))
    except ValueError:
        raise HTTPException(422, "Send a JSON object.") from None
    if not isinstance(body, dict):
        raise HTTPException(422, "Send a JSON object.")
    return body
