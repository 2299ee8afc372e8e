"""One party of a comparison, in a process of its own; run by an interpreter that has SPU.

    PYTHON domains/spu_party.py FOLDER < SHARE

This file imports nothing of Coterie's. FOLDER holds job.json, key.pem, own.pem and peers.pem; the
share comes by standard input, and this party's share of the result goes to FOLDER/result. Shares
are little-endian 64-bit words whose sum over the three parties, modulo 2^64, is the number.
"""

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
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


def connect(job: dict[str, Any], folder: Path) -> Any:
    """SPU's link to the two other parties, over `spu_lines.Lines`."""
    ports = job["ports"]
    lines_of(job, folder).open()
    described = libspu.link.Desc()
    described.id = job["id"]
    for rank in range(len(job["addresses"])):
        described.add_party(f"party-{rank}", f"127.0.0.1:{ports[rank]}")
    described.connect_retry_times = job["seconds"]
    described.connect_retry_interval_ms = 1000
    described.recv_timeout_ms = 1000 * job["seconds"]
    return libspu.link.create_brpc(described, job["rank"])


def lines_of(job: dict[str, Any], folder: Path) -> Any:
    """The lines to the two others; their file is loaded by its place, beside this one."""
    place = Path(__file__).with_name("spu_lines.py")
    found = importlib.util.spec_from_file_location("spu_lines", place)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.Lines(job, folder)


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
