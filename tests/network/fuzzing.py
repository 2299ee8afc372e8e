"""Inputs for the byte boundary: what Syft really sends, then changed, cut, spliced and repeated.

Structure is kept often enough to get past the first checks: lengths, pointers and names are changed
one at a time, inside the innermost parts too, and the result is wrapped and signed again.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Optional, Union

import numpy as np
import pandas as pd
import safetensors.numpy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import HTTPException
from syft.client.api import SyftAPICall, SyftAPIData
from syft.serde.serialize import _serialize
from syft.server.credentials import SyftSigningKey
from syft.service.response import SyftError, SyftSuccess
from syft.types.uid import UID

from domains.refusals import RoundRefused
from domains.states import load_state
from domains.witness import WitnessRefused, answer_heads, ask_for_heads
from network.capnproto import BytesRefused
from network.envelope import open_envelope
from network.hub import _read_card, new_card
from network.members import json_object
from network.reader import read
from network.reader_names import ANSWERS, OWNER, PLAIN
from policies.plan import Plan, PlanUnreadable
from tests.domains.test_engine import bound, plan

CORPUS = Path(__file__).parent / "corpus"
KEY = SyftSigningKey.generate()
_WORDS = (0, 1, 2, 3, 5, 7, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


def packed(value: Any) -> bytes:
    return bytes(_serialize(value, to_bytes=True))


def seeds() -> list[bytes]:
    """Genuine messages, one of each kind that crosses the boundary."""
    call = SyftAPICall(
        server_uid=UID(),
        path="coterie.share",
        args=[1, 2.5, None, True, "text", b"bytes", UID()],
        kwargs={"state": np.arange(40, dtype=np.uint8), "more": {"a": [1, (2, 3)], "b": {}}},
    )
    arrays = [np.zeros((3, 4), np.float64), np.asfortranarray(np.ones((2, 5), np.int64))]
    answer = SyftAPIData(data=SyftSuccess(message="x", value=np.arange(9, dtype=np.int32)))
    values = [call, answer, SyftAPIData(data=SyftError(message="no")), KEY.verify_key, *arrays]
    values += [signature(_method), {1: 2, UID(): (3,)}, {"a", "b"}]
    values += [call.sign(KEY), pd.DataFrame({"user": ["a", "b"], "item": [1, 2]})]
    return [packed(value) for value in values]


def _method(x: int, y: Optional[str] = None) -> Union[int, str]:  # noqa: UP007, UP045
    """Its signature is what a list of methods holds."""
    return y or x


def texts() -> list[bytes]:
    """Genuine JSON, and a state, of each kind that is read outside Syft's envelope."""
    key = Ed25519PrivateKey.generate()
    card = new_card("north", "https://north.example:8443", "ab" * 32, key)
    login = {"email": "ada@university.example", "password": "a long password"}
    return [
        json.dumps(login).encode(),
        json.dumps(card.model_dump()).encode(),
        ask_for_heads(key, "cd" * 32),
        bound(plan()).to_json().encode(),
        safetensors.numpy.save({"weight": np.arange(12, dtype=np.float32).reshape(3, 4)}),
    ]


def kept() -> list[bytes]:
    """Inputs that once went wrong, or reached what few do."""
    return [file.read_bytes() for file in sorted(CORPUS.glob("*.bin"))]


def inputs(seed: int, frames: bool = True) -> Iterator[bytes]:
    """Changed messages without end, the same for the same seed.

    Args:
        frames: whether data frames, which Arrow reads, are among them.
    """
    chance = random.Random(seed)
    genuine = [*(seeds() if frames else seeds()[:-1]), *texts()]
    pool = [*genuine, *kept()]
    while True:
        blob = bytearray(chance.choice(genuine if chance.random() < 0.8 else pool))
        for _ in range(chance.choice((1, 1, 2, 4, 8))):
            blob = _changed(blob, chance, pool)
        yield bytes(blob[: 2**16])


def _changed(blob: bytearray, chance: random.Random, pool: list[bytes]) -> bytearray:
    if len(blob) < 16:
        return blob + chance.randbytes(16)
    where = chance.randrange(len(blob))
    match chance.randrange(8):
        case 0:
            blob[where] ^= 1 << chance.randrange(8)
        case 1:
            blob[where] = chance.randrange(256)
        case 2:
            word = where // 8 * 8
            blob[word : word + 8] = chance.choice(_WORDS).to_bytes(8, "little")
        case 3:
            half = where // 4 * 4
            blob[half : half + 4] = chance.randbytes(4)
        case 4:
            del blob[where:]
        case 5:
            other = chance.choice(pool)
            blob[where:] = other[min(where, len(other)) :]
        case 6:
            begin = chance.randrange(len(blob))
            part = blob[begin : begin + chance.randrange(1, 65)]
            blob[where : where + len(part)] = part
        case _:
            word = where // 8 * 8
            value = int.from_bytes(blob[word : word + 8], "little")
            value = (value + chance.choice((-8, -1, 1, 4, 8, 1 << 35, 1 << 32))) % 2**64
            blob[word : word + 8] = value.to_bytes(8, "little")
    return blob


def give(blob: bytes) -> str:
    """Hand one input to every reader of the boundary; anything but a refusal is let through.

    Returns:
        What each reader said: 'read', or its refusal without the names in it.
    """
    said = []
    for names in (PLAIN, OWNER, ANSWERS):
        try:
            read(blob, names)
            said.append("read")
        except BytesRefused as error:
            said.append(re.sub(r"'[^']*'|\d+", "*", str(error), flags=re.DOTALL))
    try:
        open_envelope(blob)
        said.append("read")
    except BytesRefused as error:
        said.append(re.sub(r"'[^']*'|\d+", "*", str(error), flags=re.DOTALL))
    said += [_said(reader, refusals, blob) for reader, refusals in _OTHERS]
    return " | ".join(said)


def _said(reader: Callable[[bytes], Any], refusals: type[Exception], blob: bytes) -> str:
    try:
        reader(blob)
    except refusals as error:
        return type(error).__name__
    return "read"


def _plan(blob: bytes) -> None:
    Plan.from_json(blob.decode("utf-8", "surrogatepass" if len(blob) % 2 else "replace"))


def _state(blob: bytes) -> None:
    with TemporaryFile() as file:
        file.write(blob)
        file.flush()
        load_state(file)


_OTHERS: tuple[tuple[Callable[[bytes], Any], Any], ...] = (
    (json_object, HTTPException),
    (_read_card, HTTPException),
    (lambda blob: answer_heads(blob, "cd" * 32, lambda: ["ab" * 32], dict), WitnessRefused),
    (_plan, (PlanUnreadable, UnicodeDecodeError)),
    (_state, RoundRefused),
)
"""Readers of bytes outside Syft's envelope, and how each refuses."""
