"""The byte boundary of every Coterie process that serves Syft.

syft 0.9.5 deserialises a call before it verifies it, accepts undeclared fields and resolves type
names into live attributes, which together let anyone who reaches the port run code. Here a call is
authenticated on its raw bytes first, then read by a strict reader, then allowed or refused by the
path it names, once. Nodes and the hub both serve through this module.
"""

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from fastapi import FastAPI, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool
from syft.server.credentials import SyftSigningKey
from syft.server.server import Server
from syft.service.metadata.server_metadata import ServerMetadataJSON

from network.answers import Seal
from network.bodies import Bodies
from network.calls import Calls, ComingStream, Paths
from network.client import API
from network.connections import serve_app
from network.envelope import MAX_MESSAGE_BYTES, BytesRefused
from network.guard import install_strict_reader
from network.health import CONTENT_TYPE, Health
from network.limits import Limits, TooMuch, block_of
from network.logs import log_as_json
from network.members import address_of, json_object, require_private_channel
from network.reader_names import STORED
from network.streams import MAX_STREAM_BYTES, STREAMS

__all__ = ["API", "log_as_json", "open_app", "read_store_strictly", "serve_app"]

_MAX_LOGIN_BYTES = 4096
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_log = structlog.get_logger("coterie.gate")


def read_store_strictly() -> None:
    """Make Syft in this process read what a server reads of its database; before it starts."""
    install_strict_reader(STORED)


def open_app(
    server: Server,
    paths_of: Paths,
    memory: Path,
    node_key: SyftSigningKey,
    limits: Limits | None = None,
    why_not_ready: Callable[[], str | None] = lambda: None,
    why_ended: Callable[[str], str | None] = lambda key: None,
) -> FastAPI:
    """The HTTP face of a node or hub: metadata, login, a member's method list and signed calls.

    Sign-up, password reset, streams and CORS are absent on purpose.

    Args:
        server: the Syft server behind the boundary.
        paths_of: the service paths that a role may call; everything else is refused.
        memory: the folder of the files that remember which calls were answered (`calls.db`), and
            which accounts and addresses have to wait (`logins.db`).
        node_key: signs every answer. It need not be the server's own, which Syft hands to whoever
            logs in as its first account.
        why_not_ready: a sentence while the server should get no calls; says nothing private.
        why_ended: a sentence if the account with this verify key may no longer call.
    """
    read_store_strictly()
    limits = limits or Limits()
    gate = Calls(server, paths_of, memory, node_key, limits, why_ended)
    bodies, streams, health = Bodies(limits), Bodies(limits), Health()
    # A redirect to a path with a slash would go to whatever host the request names.
    app = FastAPI(
        title=server.name, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.state.body_of = bodies.of

    @app.middleware("http")
    async def guard(request: Request, proceed: Callable) -> Response:
        number = secrets.token_hex(8)
        structlog.contextvars.bind_contextvars(request=number)
        try:
            gate.addresses.spend(block_of(address_of(request)))
            response: Response = await proceed(request) if _is_framed_once(request) else _framed()
        except TooMuch as error:
            response = _too_much(error)
        except BytesRefused as error:
            _log.warning("refused", why=str(error))
            response = Response(str(error), status_code=400, media_type="text/plain")
        except (HTTPException, asyncio.CancelledError):
            raise
        except Exception as error:
            _log.error("failed", error=type(error).__name__)
            response = Response("The node failed; its owner finds the request in its log.", 500)
        finally:
            structlog.contextvars.unbind_contextvars("request")
        response.headers.update({**_HEADERS, "X-Request-Id": number})
        health.count(response.status_code)
        return response

    @app.exception_handler(TooMuch)
    async def wait(_: Request, error: TooMuch) -> Response:
        return _too_much(error)

    @app.exception_handler(BytesRefused)
    async def refuse(_: Request, error: BytesRefused) -> Response:
        _log.warning("refused", why=str(error))
        return Response(str(error), status_code=400, media_type="text/plain")

    @app.get(f"{API}/")
    @app.get("/healthz")
    def alive() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    def ready() -> Response:
        why = why_not_ready()
        return Response(why or "ready", 503 if why else 200, media_type="text/plain")

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(health.metrics(), media_type=CONTENT_TYPE)

    @app.get(f"{API}/metadata")
    def metadata() -> Any:
        about = server.metadata.to(ServerMetadataJSON)
        return about.model_copy(update={"verify_key": str(node_key.verify_key)})

    @app.post(f"{API}/login")
    async def login(request: Request) -> Response:
        require_private_channel(request)
        async with bodies.of(request, _MAX_LOGIN_BYTES) as blob:
            return await run_in_threadpool(gate.log_in, json_object(blob), address_of(request))

    @app.get(f"{API}/api")
    def methods(verify_key: str, communication_protocol: str) -> Response:
        return gate.methods_of(verify_key, communication_protocol)

    @app.post(f"{API}/api_call")
    async def call(request: Request) -> Response:
        async with bodies.of(request, MAX_MESSAGE_BYTES) as blob:
            return await run_in_threadpool(gate.answer, blob)

    @app.post(f"{STREAMS}/{{method}}")
    async def stream(method: str, request: Request) -> Response:
        coming = ComingStream(gate, method)
        try:
            async with streams.of(request, MAX_STREAM_BYTES, coming.look) as blob:
                return await run_in_threadpool(coming.answer, blob)
        finally:
            coming.end()

    app.add_middleware(Seal, key=node_key.signing_key)
    return app


def _is_framed_once(request: Request) -> bool:
    """Whether its body ends in one place: where two say where, a proxy may believe the other."""
    return not {"content-length", "transfer-encoding"} <= set(request.headers)


def _framed() -> Response:
    _log.warning("refused", why="framed twice")
    closing = {"Connection": "close"}
    return Response("Say a length or send chunks, not both.", 400, closing, "text/plain")


def _too_much(error: TooMuch) -> Response:
    _log.info("limited", why=str(error))
    return Response(
        str(error), 429, headers={"Retry-After": str(error.wait_s)}, media_type="text/plain"
    )
