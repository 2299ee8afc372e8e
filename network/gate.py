"""The byte boundary of every Coterie process that serves Syft.

syft 0.9.5 deserialises a call before it verifies it, accepts undeclared fields and resolves type
names into live attributes, which together let anyone who reaches the port run code. Here a call is
authenticated on its raw bytes first, then read by a strict reader, then allowed or refused by the
path it names, once. Nodes and the hub both serve through this module.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route
from syft.server.credentials import SyftSigningKey
from syft.server.server import Server
from syft.service.metadata.server_metadata import ServerMetadataJSON

from network.answers import Seal
from network.bodies import Bodies
from network.calls import Calls, Paths, Streams
from network.client import API
from network.connections import serve_app
from network.entrance import Entrance, refused, too_much
from network.envelope import MAX_MESSAGE_BYTES, BytesRefused
from network.guard import install_strict_reader, leave_texts_alone
from network.health import CONTENT_TYPE, Health
from network.limits import Limits, TooMuch
from network.logs import log_as_json
from network.members import address_of, json_object, require_private_channel
from network.reader_names import STORED
from network.streams import STREAMS

__all__ = ["API", "log_as_json", "open_app", "read_store_strictly", "serve_app"]

_MAX_LOGIN_BYTES = 4096


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
    leave_texts_alone()
    limits = limits or Limits()
    gate = Calls(server, paths_of, memory, node_key, limits, why_ended)
    bodies, streams, health = Bodies(limits), Bodies(limits), Health()
    # A redirect to a path with a slash would go to whatever host the request names.
    app = FastAPI(
        title=server.name, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.state.body_of = bodies.of

    @app.exception_handler(TooMuch)
    async def wait(_: Request, error: TooMuch) -> Response:
        return too_much(error)

    @app.exception_handler(BytesRefused)
    async def refuse(_: Request, error: BytesRefused) -> Response:
        return refused(error)

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
            return await run_in_threadpool(gate.answer, bytes(blob))

    # First, since a round's calls are all of these and every route before it is looked at.
    app.router.routes.insert(
        0, Route(f"{STREAMS}/{{method}}", Streams(gate, streams), methods=["POST"])
    )
    app.add_middleware(Entrance, addresses=gate.addresses, health=health)
    app.add_middleware(Seal, key=node_key.signing_key)
    return app
