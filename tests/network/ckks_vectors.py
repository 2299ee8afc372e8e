"""What `vectors/ckks.json` holds, computed anew: for another implementation to check itself.

    python -m tests.network.ckks_vectors        writes the file

Keys and ciphertexts are drawn by SEAL and can't be fixed. But a residue of a ciphertext is
c_0 = m - c_1 s (mod q) at the same place, and a polynomial that holds the same real number in all
slots is constant there: m = number * 2^scale_bits. So any residues serve as secret and c_1.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from network.smpc.attempt import Agreement, Context
from network.smpc.ckks import limbs, seal, tags
from network.smpc.ckks.messages import (
    KeyAdvert,
    advert_message,
    challenge_of,
    confirmation_message,
    joining_message,
    key_holder,
    opening_message,
    set_message,
    transcript_hash,
)
from network.smpc.messages import Receipt, dealt_digest, receipt_message
from policies.homomorphic import DEGREE, layout_of

FILE = Path(__file__).parent / "vectors" / "ckks.json"
INTEGERS = [0, 1, -1, 12345, -(2**31), 2**31 - 1, 2**63 - 1, -(2**63), 2**40 + 3]
NUMBERS = [0, 1, -1, 12345, -67890]


def vectors() -> dict[str, Any]:
    """Everything in the file."""
    return {
        "moduli": list(seal._moduli()),
        "layouts": [layout(domains, ring) for ring in (32, 64) for domains in (2, 3, 16, 64)],
        "limbs": [cut(3, 32, INTEGERS[:6]), cut(64, 64, INTEGERS)],
        "challenge": {"set": b"set".hex(), "challenge": challenge_of(b"set").hex()},
        "tag": {
            "challenge": challenge_of(b"set").hex(),
            "residues": "AES-256-CTR of 32 bytes 01, as u64 mod q: 2 ciphertexts",
            "tag": tags.tag_of(challenge_of(b"set"), residues(1, 2 * 2 * DEGREE)).hex(),
        },
        "decryption": {
            "secret": "AES-256-CTR of 32 bytes 02, as u64 mod q, then mod the special prime",
            "c_1": "AES-256-CTR of 32 bytes 03, as u64 mod q",
            "scale_bits": 27,
            "c_0": "number * 2^scale_bits - c_1 s (mod q)",
            "numbers": NUMBERS,
            "opened": [opened(number) for number in NUMBERS],
        },
        "key_holders": [
            key_holder(agreement(release, attempt)) for release, attempt in
            ((0, 0), (0, 1), (1, 0), (2, 0), (7, 2))
        ],
        "messages": messages(),
    }  # fmt: skip


def agreement(release: int, attempt: int) -> Agreement:
    roster = {name: f"{index:064x}" for index, name in enumerate(("east", "north", "south"))}
    return Agreement(Context("ab" * 32, "train", release, attempt), roster, 3, 1, 4, 32)


def messages() -> dict[str, Any]:
    """What domains sign in one attempt, whatever their ciphertexts, and the signatures."""
    signing = {
        name: Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
        for name in ("east", "north", "south")
    }
    roster = {name: key.public_key().public_bytes_raw().hex() for name, key in signing.items()}
    agreed = Agreement(Context("ab" * 32, "train", 0, 0), roster, 3, 1, 4, 32)
    holder = key_holder(agreed)
    keys = {name: b"" if name != holder else bytes(range(256)) * 512 for name in roster}

    def signed(of: dict[str, bytes]) -> dict[str, str]:
        return {name: signing[name].sign(message).hex() for name, message in of.items()}

    adverts = signed({n: advert_message(agreed, n, key) for n, key in keys.items()})
    heard = transcript_hash(
        agreed,
        {n: KeyAdvert(domain=n, public_key=keys[n], signature=bytes.fromhex(adverts[n]))
         for n in roster},
    )  # fmt: skip
    fields = {
        name: {"domain": name, "members": tuple(roster), "dealt": dealt_digest(heard, ()),
               "digest": blake3(b"ciphertexts of " + name.encode()).digest()}
        for name in roster
    }  # fmt: skip
    receipts = signed({n: receipt_message(heard, each) for n, each in fields.items()})
    kept = {n: Receipt(**each, signature=bytes.fromhex(receipts[n])) for n, each in fields.items()}
    chosen = set_message(heard, kept, blake3(b"their sum").digest())
    tag = bytes(range(tags.TAG_BYTES))
    return {
        "agreement": agreed.bytes.hex(),
        "key_holder": holder,
        "public_key": "the bytes 00 to ff, 512 times",
        "adverts": adverts,
        "transcript": heard.hex(),
        "joined": signed({n: joining_message(heard, n) for n in roster}),
        "receipts": {n: each.to_dict() for n, each in kept.items()},
        "sum": "BLAKE3 of 'their sum'",
        "set": chosen.hex(),
        "challenge": challenge_of(chosen).hex(),
        "tag": tag.hex(),
        "confirmations": signed({n: confirmation_message(chosen, n, tag) for n in roster}),
        "opening": signed(
            {holder: opening_message(chosen, holder, blake3(b"their total").digest())}
        ),
    }


def layout(domains: int, ring: int) -> dict[str, int]:
    found = layout_of(domains, ring)
    assert found is not None
    return {"domains": domains, "ring": ring, "scale_bits": found.scale_bits,
            "limbs": found.limbs, "limb_bits": found.limb_bits}  # fmt: skip


def cut(domains: int, ring: int, integers: list[int]) -> dict[str, Any]:
    found = layout_of(domains, ring)
    assert found is not None
    slots = limbs.to_slots(np.array(integers, dtype=np.int64), found).view(np.float64).ravel()
    held = slots[: found.limbs * len(integers)]
    return {"domains": domains, "ring": ring, "integers": integers,
            "numbers": [int(number) for number in held]}  # fmt: skip


def residues(seed: int, count: int, modulus: int | None = None) -> seal.Residues:
    stream = Cipher(algorithms.AES(bytes([seed] * 32)), modes.CTR(bytes(16))).encryptor()
    words = np.frombuffer(stream.update(bytes(8 * count)), dtype="<u8").astype(np.uint64)
    return words % np.uint64(modulus or seal.modulus())


def opened(number: int) -> list[int]:
    """The two integers that all slots of the ciphertext hold: the number, and nothing."""
    q = seal.modulus()
    whole = residues(2, DEGREE), residues(2, 2 * DEGREE, seal._moduli()[1])[DEGREE:]
    secret = b"".join(part.astype("<u8").tobytes() for part in whole)
    c_1 = residues(3, DEGREE)
    c_0 = [(number * 2**27 - int(a) * int(s)) % q for a, s in zip(c_1, whole[0], strict=True)]
    ciphertext = np.stack([np.array(c_0, dtype=np.uint64), c_1])[None]
    slots = np.rint(seal.decrypt(secret, ciphertext, 27).view(np.float64)).reshape(-1, 2)
    assert (slots == slots[0]).all()
    return [int(part) for part in slots[0]]


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), indent=1) + "\n")
