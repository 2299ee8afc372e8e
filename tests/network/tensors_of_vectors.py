"""One sharing, products, a truncation and a comparison with fixed keys and seeds, as a JSON value.

`python -m tests.network.tensors_of_vectors > tests/network/vectors/tensors.json` writes it. Random
bytes are drawn as in `attempt_of_vectors`; "drawn" has them in order: each domain's X25519 secret,
then the dealer's, for each domain its seed and the nonce it is sealed under, and each domain's
coin. Node keys are Ed25519 keys of SHA-256(name). Words are little-endian, in hex.
"""

import hashlib
import json
import os
from collections.abc import Callable
from fractions import Fraction
from typing import Any
from unittest.mock import patch

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domains.comparing import _result
from network.smpc import wide
from network.smpc.agreement import among_all
from network.smpc.attempt import Context
from network.smpc.comparisons import Comparison, Offer, offer_message, offers_transcript
from network.smpc.dealing import Computation, deal
from network.smpc.keys import EphemeralKey
from network.smpc.masks import apply
from network.smpc.ring import matmul
from network.smpc.sharing import Sharing, pair_masks
from network.smpc.tensors import Operation, computed_name, digest_of_matrix, shared_name
from network.smpc.triples import Factors
from network.smpc.truncation import Truncation
from policies import bounded, sensitivity
from policies.sensitivity import Proven
from tests.network.attempt_of_vectors import entropy

NAMES = ("east", "north", "south")
PLAN = "ab" * 32
NUMBERS = np.array([1000, -1000, 16, -1], np.int64)


def keys() -> dict[str, Ed25519PrivateKey]:
    return {
        name: Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
        for name in (*NAMES, "dealer")
    }


def public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


class Drawn:
    """Random bytes as `entropy` gives them, kept in order."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self._draw: Callable[[int], bytes] = entropy()

    def __call__(self, size: int) -> bytes:
        self.kept.append(self._draw(size).hex())
        return bytes.fromhex(self.kept[-1])


def hexed(words: np.ndarray) -> str:
    return words.astype("<u8").tobytes().hex()


def arithmetic() -> dict[str, Any]:
    """Products modulo 2^64 and 2^128, of words drawn one after the other."""
    draw = entropy()
    x, y = (np.frombuffer(draw(8 * 6), "<u8").reshape(s) for s in ((2, 3), (3, 2)))
    u, v = (np.frombuffer(draw(16 * 4), "<u8").reshape(2, 2, 2) for _ in range(2))
    return {
        "x": hexed(x),
        "y": hexed(y),
        "x @ y of [2, 3] and [3, 2] modulo 2^64": hexed(matmul(x, y)),
        "u": hexed(u),
        "v": hexed(v),
        "u * v modulo 2^128, low word first": hexed(wide.mul(u, v)),
        "u @ v of [2, 2] and [2, 2] modulo 2^128": hexed(wide.matmul(u, v)),
    }


def sharing() -> dict[str, Any]:
    """Four numbers of each domain, shared."""
    signing = keys()
    roster = {name: public(signing[name]) for name in NAMES}
    agreement = among_all(Context(PLAN, "count", 5, 0), roster, 1, 4)
    values = {name: np.array([i, -i, 2**40, -(2**62)]) for i, name in enumerate(NAMES)}
    draw = Drawn()
    with patch.object(os, "urandom", draw):
        parties = {name: Sharing(name, agreement, signing[name]) for name in NAMES}
    signed = [party.signed_key for party in parties.values()]
    transcript = parties["east"].verify(signed)
    return {
        "agreement": agreement.bytes.hex(),
        "drawn": draw.kept,
        "keys": [key.to_dict() for key in signed],
        "transcript": transcript.hex(),
        "tensor": shared_name(PLAN, transcript, 0, 4),
        "values": {name: value.tolist() for name, value in values.items()},
        "shares": {
            name: hexed(party.share(values[name].copy(), signed)) for name, party in parties.items()
        },
    }


def product(factors: Factors) -> dict[str, Any]:
    """Everything that is said in one product."""
    operands = factors.digest("1" * 64, "2" * 64)
    sizes = {"x": factors.sizes[0], "y": factors.sizes[1]}
    said = computation(factors, operands, sizes)
    return {"factors": [list(factors.x), list(factors.y), factors.matrices], **said}


def truncation(work: Truncation) -> dict[str, Any]:
    """Everything that is said in one truncation, of numbers that fit its bound."""
    operands = work.digest("1" * 64)
    said = computation(work, operands, {"x": work.length}, NUMBERS)
    return {
        "truncation": [work.length, work.bound, work.dropped],
        "numbers": NUMBERS.tolist(),
        **said,
    }


def computation(
    work: Any, operands: str, sizes: dict[str, int], total: np.ndarray | None = None
) -> dict[str, Any]:
    signing = keys()
    roster = {name: public(signing[name]) for name in NAMES}
    context = Context(PLAN, "multiply", 9, 0, f"{operands}/{work.drawn[-1]}")
    agreement = among_all(context, roster, 1, work.drawn[-1])
    draw = Drawn()
    inputs = {
        each: {name: np.frombuffer(draw(8 * size), "<u8") for name in NAMES}
        for each, size in sizes.items()
    }
    if total is not None:
        east, north, _ = inputs["x"].values()
        inputs["x"]["south"] = total.view(np.uint64) - east - north
    draw.kept.clear()
    with patch.object(os, "urandom", draw):
        parties = [
            Computation(
                n,
                agreement,
                signing[n],
                public(signing["dealer"]),
                work,
                [shares[n] for shares in inputs.values()],
            )
            for n in NAMES
        ]
        signed = [party.signed_key for party in parties]
        dealt, corrections = deal(agreement, work, signed, signing["dealer"])
        coins = [party.take(signed, dealt, corrections) for party in parties]
    openings = [party.opening(coins) for party in parties]
    _tell(parties, openings)
    checks = [party.check() for party in parties]
    _tell(parties, checks)
    return {
        "agreement": agreement.bytes.hex(),
        **{
            each: {name: hexed(words) for name, words in shares.items()}
            for each, shares in inputs.items()
        },
        "drawn": draw.kept,
        "keys": [key.to_dict() for key in signed],
        "dealt": dealt.to_dict(),
        "corrections": hexed(corrections),
        "coins": [coin.to_dict() for coin in coins],
        "openings": [[said.to_dict(), hexed(words)] for said, words in openings],
        "checks": [[said.to_dict(), hexed(words)] for said, words in checks],
        "tensor": computed_name(PLAN, parties[0].transcript),
        "shares": {party.me: hexed(party.result()) for party in parties},
    }


def _tell(parties: list[Computation], told: list[Any]) -> None:
    for receiver in parties:
        for said, words in told:
            if said.domain != receiver.me:
                receiver.hear(said, words)


def comparison() -> dict[str, Any]:
    """What is said before SPU begins, and how shares are masked on their way in and out."""
    signing = keys()
    asked = Comparison(do="clip", of="1" * 64, low="-5", high="7", number=11)
    roster = {name: public(signing[name]) for name in NAMES}
    context = Context(PLAN, "compare", asked.number, 0, f"{asked.digest()}/4")
    agreement = among_all(context, roster, 1, 4)
    secrets = {name: hashlib.sha256(b"compare " + name.encode()).digest() for name in NAMES}
    offers = {}
    for index, name in enumerate(NAMES):
        key, said = EphemeralKey(secrets[name]).public_key, f"certificate of {name}"
        address = f"10.0.0.{index}:8301"
        signature = signing[name].sign(offer_message(agreement, name, key, said, address))
        offers[name] = Offer(
            domain=name, key=key, certificate=said, address=address, signature=signature
        )
    transcript = offers_transcript(agreement, offers)
    public_keys = {name: offer.key for name, offer in offers.items()}
    taken = hashlib.sha256(_result(transcript)).digest()

    def masks(bound: bytes) -> dict[str, str]:
        found = {name: np.zeros(4, np.uint64) for name in NAMES}
        for name, words in found.items():
            apply(words, pair_masks(bound, name, EphemeralKey(secrets[name]), public_keys))
        return {name: hexed(words) for name, words in found.items()}

    return {
        "asked": asked.to_dict(),
        "digest": asked.digest(),
        "agreement": agreement.bytes.hex(),
        "secrets": {name: secret.hex() for name, secret in secrets.items()},
        "offers": [offer.to_dict() for offer in offers.values()],
        "transcript": transcript.hex(),
        "masks of what goes in": masks(transcript),
        "masks of what comes out": masks(taken),
        "tensor": computed_name(PLAN, transcript),
    }


def proven() -> dict[str, Any]:
    """What every domain must find proven of the same tensors, or they refuse each other's."""
    x = Proven((2, 3), Fraction(1, 2**20), 10**18, 3 * 10**13, ("x",))
    y = Proven((2, 3), Fraction(3, 8), 10**6, 10**4, ("y",))
    matrix = np.array([[1, -2], [3, 0], [-5, 7]])
    product = sensitivity.multiplied(x, y, matrices=False)
    return {
        "x": x.to_json(),
        "y": y.to_json(),
        "x + y": sensitivity.added(x, y)[1].to_json(),
        "[x, y]": sensitivity.concatenated([x, y], 0)[1].to_json(),
        "x.sum(1)": sensitivity.summed(x, 1).to_json(),
        "x[:, 1:]": sensitivity.sliced(x, [(0, 2, 1), (1, 3, 1)]).to_json(),
        "-7/3 x": sensitivity.rescaled(x, Fraction(-7, 3)).to_json(),
        "matrix": {"entries": matrix.tolist(), "digest": digest_of_matrix(matrix)},
        "matrix @ x": sensitivity.mapped(x, matrix, Fraction(1, 4), left=True).to_json(),
        "x * y": product.to_json(),
        "(x * y) truncated by 9": sensitivity.truncated(product, 9).to_json(),
        "x clipped": bounded.clipped(x, -(2**21), 2**22).to_json(),
        "x > t": bounded.answered(x).to_json(),
        "x.argmax()": bounded.largest(x).to_json(),
    }


def vectors() -> dict[str, Any]:
    operation = Operation(do="scale", of=("1" * 64,), factor="-3/8")
    return {
        "arithmetic": arithmetic(),
        "operation": {"text": operation.text, "plan": PLAN, "tensor": operation.name(PLAN)},
        "proven": proven(),
        "sharing": sharing(),
        "elementwise": product(Factors((3,), (3,), matrices=False)),
        "matrices": product(Factors((2, 3), (3, 2), matrices=True)),
        "truncation": truncation(Truncation(len(NUMBERS), 10, 4)),
        "comparison": comparison(),
    }


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
