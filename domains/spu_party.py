"""One party of a comparison, in a process of its own; run by an interpreter that has SPU.

    PYTHON domains/spu_party.py FOLDER < SHARE

This file imports nothing of Coterie's. FOLDER holds job.json, key.pem, own.pem and peers.pem; the
share comes by standard input, and this party's share of the result goes to FOLDER/result. Shares
are little-endian 64-bit words whose sum over the three parties, modulo 2^64, is the number.
"""

import asyncio
import json
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import spu
import spu.libspu as libspu
import spu.utils.frontend as frontend

_FAREWELL_S = 2
_ARITHMETIC = b"aby3.AShr<FM64>"


def computation(job: dict[str, Any]) -> Callable[[Any], Any]:
    """What is computed of integers of shape `job["shape"]`."""
    low, high, one = job["low"], job["high"], job["one"]

    def above(x: Any) -> Any:
        return jnp.where(x > low, one, 0)

    def clip(x: Any) -> Any:
        return jnp.clip(x, low, high)

    def argmax(x: Any) -> Any:
        places = jnp.arange(x.shape[-1])
        return jnp.where(places == jnp.argmax(x, axis=-1, keepdims=True), one, 0)

    def sigmoid(x: Any) -> Any:
        inside = jnp.clip(x, -job["limit"], job["limit"]) >> job["before"]
        fixed = jnp.clip((inside * job["factor"]) >> job["after"], -job["saturated"],
                         job["saturated"])  # fmt: skip
        # Integers are SPU's fixed-point numbers as they stand.
        found = jax.nn.sigmoid(jax.lax.bitcast_convert_type(fixed, jnp.float64))
        answer = jax.lax.bitcast_convert_type(found, jnp.int64) >> job["beyond"]
        return jnp.clip(answer, 0, one)

    chosen = {"above": above, "clip": clip, "argmax": argmax, "sigmoid": sigmoid}[job["do"]]
    return lambda x: chosen(-x if job["sign"] < 0 else x)


class Lines:
    """TLS 1.3 to the two other parties, each known by its very certificate, for SPU's own link.

    SPU speaks to ports of this machine; what it says to a party is carried to that party alone.
    """

    def __init__(self, job: dict[str, Any], folder: Path, own_port: int) -> None:
        self._addresses = [address.rpartition(":") for address in job["addresses"]]
        self._rank, self._seconds = job["rank"], job["seconds"]
        self._folder, self._own_port = folder, own_port
        self._certificates = [
            ssl.PEM_cert_to_DER_cert(each) if each else b"" for each in job["certificates"]
        ]
        self.ports: dict[int, int] = {}

    def open(self) -> None:
        """Carry until the process ends; gives a port of this machine for each other party."""
        ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._carry(ready)), daemon=True).start()
        if not ready.wait(self._seconds):
            raise SystemExit("the address of this party can't be listened on")

    async def _carry(self, ready: threading.Event) -> None:
        servers = []
        for rank in range(len(self._addresses)):
            if rank != self._rank:
                server = await asyncio.start_server(partial(self._out, rank), "127.0.0.1", 0)
                self.ports[rank] = server.sockets[0].getsockname()[1]
                servers.append(server)
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
            here = await self._reached("127.0.0.1", self._own_port)
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


def connect(job: dict[str, Any], folder: Path) -> Any:
    """SPU's link to the two other parties, over `Lines`."""
    own_port = free_port()
    lines = Lines(job, folder, own_port)
    lines.open()
    described = libspu.link.Desc()
    described.id = job["id"]
    for rank in range(len(job["addresses"])):
        described.add_party(f"party-{rank}", f"127.0.0.1:{lines.ports.get(rank, own_port)}")
    described.connect_retry_times = job["seconds"]
    described.connect_retry_interval_ms = 1000
    described.recv_timeout_ms = 1000 * job["seconds"]
    return libspu.link.create_brpc(described, job["rank"])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def main() -> None:
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    rank, shape = job["rank"], tuple(job["shape"])
    mine = np.frombuffer(sys.stdin.buffer.read(), "<u8")
    jax.config.update("jax_enable_x64", True)
    link = connect(job, folder)
    settings = libspu.RuntimeConfig(protocol=libspu.ProtocolKind.ABY3, field=libspu.FieldType.FM64)
    settings.fxp_fraction_bits = job["fraction_bits"]
    settings.sigmoid_mode = libspu.RuntimeConfig.SigmoidMode.SIGMOID_REAL
    machine = spu.Runtime(link, settings)
    # ABY3 has each of three parts at two parties: a party's own, and that of the next one.
    link.send((rank - 1) % 3, mine.tobytes())
    following = np.frombuffer(link.recv((rank + 1) % 3), "<u8")
    zeros = np.zeros(shape, np.int64)
    share = spu.Io(3, settings).make_shares(zeros, libspu.Visibility.VIS_SECRET)[rank]
    if len(following) != len(mine) or _ARITHMETIC not in share.meta:
        raise SystemExit("this SPU doesn't keep shares as expected")
    share.share_chunks = [chunk(np.stack([mine, following], axis=-1).tobytes())]
    program, *_ = frontend.compile(
        frontend.Kind.JAX, computation(job), [zeros], {}, ["x"],
        [libspu.Visibility.VIS_SECRET], lambda found: [f"y{i}" for i in range(len(found))],
    )  # fmt: skip
    machine.set_var("x", share)
    machine.run(program)
    found = machine.get_var("y0")
    if _ARITHMETIC not in found.meta:
        raise SystemExit("this SPU gave no arithmetic shares")
    words = np.frombuffer(b"".join(content(each) for each in found.share_chunks), "<u8")
    (folder / "result").write_bytes(words.reshape(-1, 2)[:, 0].tobytes())
    # The result is there. A party may still wait for an answer of ours before it has its own.
    with suppress(RuntimeError):
        link.barrier()
    time.sleep(_FAREWELL_S)
    os._exit(0)


def chunk(octets: bytes) -> bytes:
    """Shares as SPU reads them."""
    made = libspu.ValueChunk()
    made.total_bytes, made.chunk_offset, made.content = len(octets), 0, octets
    written: bytes = made.SerializeToString()
    return written


def content(written: bytes) -> bytes:
    """The shares in what SPU wrote."""
    made = libspu.ValueChunk()
    made.ParseFromString(written)
    octets: bytes = made.content
    return octets


if __name__ == "__main__":
    main()
