"""What passes between the parties of a comparison: TLS among the three, and nobody else.

This file imports nothing of Coterie's: it runs in SPU's process, with SPU's interpreter.
"""

import asyncio
import ssl
import threading
from functools import partial
from pathlib import Path
from typing import Any


class Lines:
    """TLS 1.3 to the two other parties, each known by its very certificate, for SPU's own link.

    SPU speaks to ports of this machine; what it says to a party is carried to that party alone.

    Args:
        job: `rank` of this party; by rank, the parties' `addresses`, their `certificates` (PEM,
            empty for this party's) and the `ports` of this machine that stand for them;
            `seconds` to wait for a party that isn't there yet.
        folder: of own.pem and key.pem, this party's, and peers.pem, the others' certificates.
    """

    def __init__(self, job: dict[str, Any], folder: Path) -> None:
        self._addresses = [address.rpartition(":") for address in job["addresses"]]
        self._rank, self._seconds = job["rank"], job["seconds"]
        self._folder, self._ports = folder, job["ports"]
        self._certificates = [
            ssl.PEM_cert_to_DER_cert(each) if each else b"" for each in job["certificates"]
        ]

    def open(self) -> None:
        """Listen for SPU and for the others; carry until the process ends."""
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._carry(ready)), daemon=True).start()
        if not ready.wait(self._seconds):
            raise SystemExit("the address of this party can't be listened on")

    async def _carry(self, ready: threading.Event) -> None:
        servers = []
        for rank in range(len(self._addresses)):
            if rank != self._rank:
                out = partial(self._out, rank)
                servers.append(await asyncio.start_server(out, "127.0.0.1", self._ports[rank]))
        host, _, port = self._addresses[self._rank]
        settings = self._settings(ssl.PROTOCOL_TLS_SERVER)
        servers.append(await asyncio.start_server(self._in, host, int(port), ssl=settings))
        ready.set()
        await asyncio.gather(*(server.serve_forever() for server in servers))

    async def _out(self, rank: int, reader: Any, writer: Any) -> None:
        host, _, port = self._addresses[rank]
        settings = self._settings(ssl.PROTOCOL_TLS_CLIENT)
        there = await self._reached(host, int(port), ssl=settings)
        if peer_of(there[1]) == self._certificates[rank]:
            await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))
        there[1].close()
        writer.close()

    async def _in(self, reader: Any, writer: Any) -> None:
        others = self._certificates[: self._rank] + self._certificates[self._rank + 1 :]
        if peer_of(writer) in others:
            here = await self._reached("127.0.0.1", self._ports[self._rank])
            await asyncio.gather(pump(reader, here[1]), pump(here[0], writer))
            here[1].close()
        writer.close()

    async def _reached(self, host: str, port: int, **more: Any) -> Any:
        """A connection to where nobody may be listening yet."""
        for _ in range(5 * self._seconds):
            try:
                return await asyncio.open_connection(host, port, **more)
            except OSError:
                await asyncio.sleep(0.2)
        raise ConnectionError("a party can't be reached")

    def _settings(self, side: Any) -> ssl.SSLContext:
        found = ssl.SSLContext(side)
        found.minimum_version = ssl.TLSVersion.TLSv1_3
        found.check_hostname = False  # it is known by its certificate, byte for byte
        found.verify_mode = ssl.CERT_REQUIRED
        found.load_cert_chain(self._folder / "own.pem", self._folder / "key.pem")
        found.load_verify_locations(self._folder / "peers.pem")
        return found


def peer_of(writer: Any) -> bytes:
    """The certificate that the other side showed, DER."""
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
    return shown


async def pump(reader: Any, writer: Any) -> None:
    """Pass on all that comes."""
    try:
        while octets := await reader.read(2**16):
            writer.write(octets)
            await writer.drain()
    except OSError:
        pass
    writer.close()
