"""What stands around every request of a server: a count, limits, one framing, the same headers.

Plain ASGI: a bulk answer passes through it as it is, in the task that took the request.
"""

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response

from network.capnproto import BytesRefused
from network.health import Health
from network.limits import Rate, TooMuch, block_of
from network.members import address_of

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_log = structlog.get_logger("coterie.gate")

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[MutableMapping[str, Any], _Receive, _Send], Awaitable[None]]


class Entrance:
    """ASGI middleware.

    Args:
        addresses: how much an address may ask.
        health: counts the answers.
    """

    def __init__(self, app: _App, addresses: Rate, health: Health) -> None:
        self._app, self._addresses, self._health = app, addresses, health

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send
    ) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number, started = secrets.token_hex(8), False

        async def say(message: _Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update({**_HEADERS, "X-Request-Id": number})
                self._health.count(message["status"])
            await send(message)

        structlog.contextvars.bind_contextvars(request=number)
        try:
            await self._answer(scope, receive, say)
        except Exception as error:
            _log.error("failed", error=type(error).__name__)
            if started:
                raise
            text = "The node failed; its owner finds the request in its log."
            await Response(text, 500)(scope, receive, say)
        finally:
            structlog.contextvars.unbind_contextvars("request")

    async def _answer(self, scope: MutableMapping[str, Any], receive: _Receive, say: _Send) -> None:
        request = Request(scope)
        try:
            self._addresses.spend(block_of(address_of(request)))
            if _is_framed_once(request):
                await self._app(scope, receive, say)
                return
            refusal = _framed()
        except TooMuch as error:
            refusal = too_much(error)
        except BytesRefused as error:
            refusal = refused(error)
        await refusal(scope, receive, say)


def too_much(error: TooMuch) -> Response:
    """The answer where a limit is reached."""
    _log.info("limited", why=str(error))
    return Response(
        str(error), 429, headers={"Retry-After": str(error.wait_s)}, media_type="text/plain"
    )


def refused(error: BytesRefused) -> Response:
    """The answer to bytes that can't be read."""
    _log.warning("refused", why=str(error))
    return Response(str(error), 400, media_type="text/plain")


def _is_framed_once(request: Request) -> bool:
    """Whether its body ends in one place: where two say where, a proxy may believe the other."""
    return not {"content-length", "transfer-encoding"} <= set(request.headers)


def _framed() -> Response:
    _log.warning("refused", why="framed twice")
    closing = {"Connection": "close"}
    return Response("Say a length or send chunks, not both.", 400, closing, "text/plain")
