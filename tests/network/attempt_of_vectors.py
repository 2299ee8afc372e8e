"""One whole attempt with fixed keys, seeds and nonces, as a JSON value.

`python -m tests.network.attempt_of_vectors > tests/network/vectors/aggregation.json` writes it.
Every random byte is drawn, in order, from SHA-256("coterie vectors" || counter).
"""

import hashlib
import json
import os
from collections.abc import Callable
from fractions import Fraction
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from network.smpc import ring, shamir
from network.smpc.aggregation import Party
from network.smpc.attempt import Agreement, Context
from network.smpc.coordination import Coordinator
from network.smpc.keys import EphemeralKey
from network.smpc.masks import Mask, apply, mask_key
from network.smpc.messages import pair_info, self_info, transcript_hash
from network.smpc.neighbours import degree, neighbourhood, share_threshold
from policies.mechanism import truncate
from policies.noise import SecureRandom, discrete_gaussian
from tests.network.roster_of_domains import _MASKS, Disk

NAMES = ("east", "north", "south")
FIVE = (*NAMES, "up", "west")
ROSTERS = [(5, 4, 1), (16, 12, 7), (17, 13, 5), (20, 18, 3), (33, 25, 8), (64, 60, 4)]
FIXED = [0.0, 1.0, -1.0, 0.3333333, -0.3333333, 1e-7, -1e-7, 255.99999]


def entropy() -> Callable[[int], bytes]:
    """Instead of `os.urandom`: the same bytes every time."""
    counter = 0

    def draw(size: int) -> bytes:
        nonlocal counter
        found = b""
        while len(found) < size:
            found += hashlib.sha256(b"coterie vectors" + counter.to_bytes(8, "big")).digest()
            counter += 1
        return found[:size]

    return draw


def primitives() -> dict[str, Any]:
    """Each part alone."""
    secret, other = (hashlib.sha256(text).digest() for text in (b"one", b"other"))
    with patch.object(os, "urandom", entropy()):
        shares = shamir.split(secret, 3, 5)
        sealed = EphemeralKey(secret).seal(b"shares", EphemeralKey(other).public_key)
    with patch.object(os, "urandom", entropy()):
        noise = discrete_gaussian(Fraction(21, 2), 12, SecureRandom())
    key = mask_key(secret, b"info")
    words = np.zeros(6, dtype=np.uint64)
    digest = apply(words, [Mask(key)])
    return {
        "secret": secret.hex(),
        "shamir": {"threshold": 3, "shares": [share.hex() for share in shares]},
        "hkdf": {"info": b"info".hex(), "key": key.hex()},
        "keystream": {"words": [str(word) for word in words], "blake3": digest.hex()},
        "x25519": {
            "other_secret": other.hex(),
            "public": EphemeralKey(secret).public_key.hex(),
            "agreed": EphemeralKey(secret).agree(EphemeralKey(other).public_key).hex(),
        },
        "sealing": {"message": b"shares".hex(), "nonce_and_box": sealed.hex()},
        "fixed_point": {
            "scale": 2**22,
            "values": FIXED,
            "units": truncate(torch.tensor(FIXED, dtype=torch.float64), 2**22).long().tolist(),
        },
        "noise": {
            "sigma": "21/2",
            "keystream_key": entropy()(32).hex(),
            "drawn": noise.tolist(),
        },
        "frames": {
            str(bits): ring.pack(ring.to_ring(np.array([1, -2, 3]), bits)).hex()
            for bits in (32, 64)
        },
    }


def neighbours(size: int, threshold: int, collusion: int) -> dict[str, Any]:
    """Who masks with whom in a roster: of the first, a middle and the last domain."""
    each = degree(size, threshold, collusion)
    return {
        "domains": size,
        "threshold": threshold,
        "collusion": collusion,
        "degree": each,
        "share_threshold": share_threshold(size, threshold, collusion),
        "neighbourhoods": {i: neighbourhood(i, size, each) for i in (0, size // 2, size - 1)},
    }


def attempt(names: tuple[str, ...] = NAMES, threshold: int = 3, silent: str = "") -> dict[str, Any]:
    """Four elements, one attempt, from adverts to the total.

    Args:
        silent: a domain that says nothing more once it has dealt its shares.
    """
    keys = {n: hashlib.sha256(b"sign " + n.encode()).digest() for n in names}
    signing = {n: Ed25519PrivateKey.from_private_bytes(key) for n, key in keys.items()}
    roster = {n: key.public_key().public_bytes_raw().hex() for n, key in signing.items()}
    agreement = Agreement(Context("ab" * 32, "train", 7, 1), roster, threshold, 1, 4, 32)
    values = {n: np.array([1, -2, 3, 4]) * (i + 1) for i, n in enumerate(names)}
    with patch.object(os, "urandom", entropy()):
        parties = {n: Party(n, agreement, signing[n], Disk()) for n in names}
        coordinator = Coordinator(
            agreement,
            lambda phase, told: {
                n: _MASKS[phase](parties[n], values[n], told[n])
                for n in told
                if n != silent or phase in ("advertise", "share")
            },
        )
        opened = coordinator.finish(coordinator.begin())
    heard = transcript_hash(agreement, {a.domain: a for a in opened.transcript.adverts})
    kept = {
        name: [message.to_dict() for message in getattr(opened.transcript, name)]
        for name in ("adverts", "sealed", "receipts", "confirmations", "unmaskings")
    }
    return {
        "signing_secrets": {n: key.hex() for n, key in keys.items()},
        "agreement": agreement.bytes.hex(),
        "transcript_hash": heard.hex(),
        "pair_info_east_north": pair_info(heard, "north", "east").hex(),
        "self_info_east": self_info(heard, "east").hex(),
        **json.loads(json.dumps(kept)),
        "masked": {n: ring.pack(elements).hex() for n, elements in opened.masked.items()},
        "total": opened.total.tolist(),
    }


def vectors() -> dict[str, Any]:
    """Everything in the file."""
    return {
        "primitives": primitives(),
        "neighbours": [neighbours(*roster) for roster in ROSTERS],
        "attempt": attempt(),
        "attempt without north": attempt(FIVE, 4, "north"),
    }


if __name__ == "__main__":
    print(json.dumps(vectors(), indent=1))
