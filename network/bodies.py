"""Bodies of requests: bounded in size and time, and in the memory that all of them take."""

import asyncio
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
        look: Callable[[bytearray], Awaitable[None]] | None = None,
    ) -> AsyncIterator[bytearray]:
        """The body, up to a size and within a time that grows with what has come.

        Args:
            look: shown what has come so far, with each part; raises to take no more.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > limit:
            raise HTTPException(413, f"At most {limit} bytes.")
        body, held, clock = bytearray(), 0, asyncio.timeout(None)
        began = asyncio.get_running_loop().time()
        address = block_of(request.client.host if request.client else "")
        try:
            try:
                async with clock:
                    clock.reschedule(began + self._allowed(body))
                    async for part in request.stream():
                        clock.reschedule(None)
                        more = max(0, len(body) + len(part) - _FREE_BYTES) - held
                        self._room.take(more, address)
                        held += more
                        body += part
                        if len(body) > limit:
                            raise HTTPException(413, f"At most {limit} bytes.")
                        if look is not None:
                            await look(body)
                        clock.reschedule(began + self._allowed(body))
            except TimeoutError:
                raise HTTPException(408, "The request comes too slowly.") from None
            yield body
        finally:
            self._room.give_back(held, address)

    def _allowed(self, body: bytearray) -> float:
        return self._limits.body_seconds + len(body) / self._limits.body_bytes_per_s
