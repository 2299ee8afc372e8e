"""Bodies of requests: bounded in size and time, and in the memory that all of them take."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import HTTPException, Request

from network.limits import BodyRoom, Limits, block_of

_FREE_BYTES = 2**16
"""Of each body, so that small calls go on while others fill the room with long ones, slowly."""


class Bodies:
    """What comes after a request's head."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._room = BodyRoom(limits.bodies_bytes, limits.bodies_bytes_per_address)

    @asynccontextmanager
    async def of(
        self,
        request: Request,
        limit: int,
        look: Callable[[bytearray], Awaitable[bool]] | None = None,
    ) -> AsyncIterator[bytes]:
        """The body, up to a size and within a time that grows with what has come.

        Args:
            look: shown what has come so far, until it gives True; raises to take no more.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > limit:
            raise HTTPException(413, f"At most {limit} bytes.")
        body, held, began = bytearray(), 0, time.monotonic()
        address = block_of(request.client.host if request.client else "")
        stream = request.stream().__aiter__()
        try:
            while True:
                allowed = self._limits.body_seconds + len(body) / self._limits.body_bytes_per_s
                left = began + allowed - time.monotonic()
                try:
                    part = await asyncio.wait_for(anext(stream), max(left, 0.0))
                except StopAsyncIteration:
                    break
                except TimeoutError:
                    raise HTTPException(408, "The request comes too slowly.") from None
                more = max(0, len(body) + len(part) - _FREE_BYTES) - held
                self._room.take(more, address)
                held += more
                body += part
                if len(body) > limit:
                    raise HTTPException(413, f"At most {limit} bytes.")
                if look is not None and await look(body):
                    look = None
            yield bytes(body)
        finally:
            self._room.give_back(held, address)
