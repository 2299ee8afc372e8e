"""Another implementation checks itself: from the vectors' files and published primitives alone.

Nothing here imports Coterie. Numbers are Python's; X25519, Ed25519 and AES are of `cryptography`.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from nacl.public import Box, PrivateKey, PublicKey

FOLDER = Path(__file__).parent / "vectors"
SUMS, TENSORS, CKKS = (
    json.loads((FOLDER / f"{name}.json").read_text()) for name in ("aggregation", "tensors", "ckks")
)
COMPUTATIONS = ("elementwise", "matrices", "truncation")
PRIME = 2**521 - 1


def framed(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def unframed(octets: bytes) -> list[bytes]:
    found = []
    while octets:
        size = int.from_bytes(octets[:4], "big")
        found.append(octets[4 : 4 + size])
        octets = octets[4 + size :]
    return found


def hkdf(secret: bytes, info: bytes) -> bytes:
    """RFC 5869 with SHA-256, no salt, 32 bytes."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def stream(key: bytes, count: int, width: int = 8) -> list[int]:
    """AES-256-CTR from counter 0 as little-endian numbers."""
    cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return numbers(cipher.update(bytes(width * count)), width)


def numbers(octets: bytes, width: int = 8) -> list[int]:
    parts = range(0, len(octets), width)
    return [int.from_bytes(octets[at : at + width], "little") for at in parts]


def words(text: str, width: int = 8) -> list[int]:
    return numbers(bytes.fromhex(text), width)


def summed(lists: list[list[int]], modulus: int = 2**64) -> list[int]:
    return [sum(each) % modulus for each in zip(*lists, strict=True)]


def agreed(secret: bytes, public: bytes) -> bytes:
    mine = X25519PrivateKey.from_private_bytes(secret)
    return mine.exchange(X25519PublicKey.from_public_bytes(public))


def pair_mask(bound: bytes, one: str, other: str, secret: bytes, count: int, width: int = 8) -> Any:
    first, second = sorted((one, other))
    info = framed(b"coterie-pair-mask-v1", bound, first.encode(), second.encode())
    return stream(hkdf(secret, info), count, width)


def opened(shares: Mapping[int, str]) -> bytes:
    """Shamir's secret at 0, from holders' numbers and shares."""
    total = 0
    for x, share in shares.items():
        top = bottom = 1
        for other in shares:
            if other != x:
                top, bottom = top * other % PRIME, bottom * (other - x) % PRIME
        total += int(share, 16) * top * pow(bottom, -1, PRIME)
    return (total % PRIME).to_bytes(32, "big")


def test_single_primitives() -> None:
    said = SUMS["primitives"]
    secret, threshold = bytes.fromhex(said["secret"]), said["shamir"]["threshold"]
    shares = dict(enumerate(said["shamir"]["shares"], 1))
    assert opened({x: shares[x] for x in list(shares)[-threshold:]}) == secret
    key = bytes.fromhex(said["hkdf"]["key"])
    assert hkdf(secret, bytes.fromhex(said["hkdf"]["info"])) == key
    assert stream(key, 6) == [int(word) for word in said["keystream"]["words"]]
    other = X25519PrivateKey.from_private_bytes(bytes.fromhex(said["x25519"]["other_secret"]))
    public = other.public_key().public_bytes_raw()
    assert agreed(secret, public).hex() == said["x25519"]["agreed"]
    sender = PrivateKey(secret).public_key
    box = Box(PrivateKey(other.private_bytes_raw()), PublicKey(bytes(sender)))
    sealed = bytes.fromhex(said["sealing"]["nonce_and_box"])
    assert box.decrypt(sealed).hex() == said["sealing"]["message"]
    fixed = said["fixed_point"]
    assert [int(value * fixed["scale"]) for value in fixed["values"]] == fixed["units"]


@pytest.mark.parametrize("which", ["attempt", "attempt without north"])
def test_a_total_from_what_was_said_alone(which: str) -> None:
    """Each survivor's self-mask comes off, and the pairwise masks of whoever fell silent."""
    said = SUMS[which]
    heard = bytes.fromhex(said["transcript_hash"])
    names = sorted(advert["domain"] for advert in said["adverts"])
    keys = {each["domain"]: bytes.fromhex(each["mask_key"]) for each in said["adverts"]}
    total = [0] * 4
    for frame in said["masked"].values():
        total = summed([total, numbers(bytes.fromhex(frame)[12:], 4)], 2**32)
    needed = 3 if len(names) == 3 else 4

    def secret_of(kind: str, name: str) -> bytes:
        held = {names.index(each["domain"]) + 1: each[kind][name]
                for each in said["unmaskings"] if name in each[kind]}  # fmt: skip
        return opened(dict(list(held.items())[:needed]))

    for name in said["masked"]:
        key = hkdf(
            secret_of("seed_shares", name), framed(b"coterie-self-mask-v1", heard, name.encode())
        )
        total = [(a - b) % 2**32 for a, b in zip(total, stream(key, 4, 4), strict=True)]
    for name in set(names) - set(said["masked"]):
        secret = secret_of("key_shares", name)
        for other in said["masked"]:
            mask = pair_mask(heard, name, other, agreed(secret, keys[other]), 4, 4)
            # Who comes first adds the mask of a pair, who comes after takes it away.
            sign = 1 if name < other else -1
            total = [(a + sign * b) % 2**32 for a, b in zip(total, mask, strict=True)]
    assert [each - 2**32 * (each >= 2**31) for each in total] == said["total"]


@pytest.mark.parametrize("said", SUMS["neighbours"], ids=lambda said: str(said["domains"]))
def test_who_masks_with_whom(said: dict[str, Any]) -> None:
    """Harary's graph, of a degree that keeps it connected whoever is taken away."""
    size, silent = said["domains"], said["domains"] - said["threshold"]
    assert said["share_threshold"] == said["degree"] + 1 - silent > said["collusion"]
    for index, found in said["neighbourhoods"].items():
        assert len(found) == said["degree"] + 1
        assert int(index) in found
        if said["degree"] < size - 1:
            half = said["degree"] // 2
            near = {(int(index) + step) % size for step in range(-half, half + 1)}
            far = {(int(index) + size // 2) % size} if said["degree"] % 2 else set()
            assert set(found) == near | far


def test_shares_of_a_sum() -> None:
    said = TENSORS["sharing"]
    names, bound = list(said["values"]), bytes.fromhex(said["transcript"])
    secrets = dict(zip(names, map(bytes.fromhex, said["drawn"]), strict=True))
    keys = {each["domain"]: bytes.fromhex(each["key"]) for each in said["keys"]}
    for name, value in said["values"].items():
        share = [each % 2**64 for each in value]
        for other in names:
            if other != name:
                mask = pair_mask(bound, name, other, agreed(secrets[name], keys[other]), 4)
                sign = 1 if name < other else -1
                share = [(a + sign * b) % 2**64 for a, b in zip(share, mask, strict=True)]
        assert share == words(said["shares"][name])


@pytest.mark.parametrize("which", COMPUTATIONS)
def test_what_a_dealer_dealt_and_what_became_of_it(which: str) -> None:
    said = TENSORS[which]
    names, dealt = list(said["x"]), said["dealt"]
    sizes = sizes_of(said)
    heard = hashlib.sha256(
        framed(b"coterie-tensor-keys-v1", bytes.fromhex(said["agreement"]),
               *(signed_key(said, name) for name in names))
    ).digest()  # fmt: skip
    parts = [[0] * size for size in sizes]
    for index, name in enumerate(names):
        # After the domains' and the dealer's secrets: a seed and a nonce for each domain.
        seed = bytes.fromhex(said["drawn"][4 + 2 * index])
        box = Box(PrivateKey(bytes.fromhex(said["drawn"][index])),
                  PublicKey(bytes.fromhex(dealt["key"])))  # fmt: skip
        assert box.decrypt(bytes.fromhex(dealt["seeds"][name])) == seed
        key = hkdf(seed, framed(b"coterie-triple-seed-v1", heard, name.encode()))
        drawn = stream(key, sum(sizes), 16)
        for part, size in enumerate(sizes):
            parts[part] = summed([parts[part], drawn[:size]], 2**128)
            drawn = drawn[size:]
    corrections = words(said["corrections"], 16)
    half = len(corrections) // 2
    one, other = (0, 2) if which == "truncation" else (3, 4)
    parts[one] = summed([parts[one], corrections[:half]], 2**128)
    parts[other] = summed([parts[other], corrections[half:]], 2**128)
    total = summed([words(each) for each in said["shares"].values()])
    x = summed([words(each) for each in said["x"].values()])
    if which == "truncation":
        bits, again, product = parts
        assert set(bits) <= {0, 1}
        assert product == [a * b % 2**128 for a, b in zip(again, bits, strict=True)]
        dropped = said["truncation"][2]
        for number, found in zip(said["numbers"], total, strict=True):
            assert found - 2**64 * (found >= 2**63) in (number >> dropped, (number >> dropped) + 1)
        return
    a, b, again, c, c_again = parts
    y = summed([words(each) for each in said["y"].values()])
    for left, right, product, modulus in (
        (a, b, c, 2**128),
        (again, b, c_again, 2**128),
        (x, y, total, 2**64),
    ):
        assert times(said["factors"], left, right, modulus) == product


def sizes_of(said: Mapping[str, Any]) -> list[int]:
    """How many numbers modulo 2^128 each part of what is dealt has."""
    if "truncation" in said:
        length, bound, _ = said["truncation"]
        return [length * (bound + 2)] * 3
    x, y, matrices = said["factors"]
    if not matrices:
        return [x[0]] * 5
    return [x[0] * x[1], y[0] * y[1], x[0] * x[1], x[0] * y[1], x[0] * y[1]]


def times(factors: list[Any], x: list[int], y: list[int], modulus: int) -> list[int]:
    shape, other, matrices = factors
    if not matrices:
        return [a * b % modulus for a, b in zip(x, y, strict=True)]
    (m, k), n = shape, other[1]
    return [
        sum(x[i * k + j] * y[j * n + column] for j in range(k)) % modulus
        for i in range(m)
        for column in range(n)
    ]


def signed_key(said: Mapping[str, Any], name: str) -> bytes:
    (key,) = (bytes.fromhex(each["key"]) for each in said["keys"] if each["domain"] == name)
    agreement = bytes.fromhex(said["agreement"])
    return framed(b"coterie-tensor-key-v1", agreement, name.encode(), key)


def test_masks_of_a_comparison_cancel_and_are_of_its_transcript() -> None:
    said = TENSORS["comparison"]
    bound = bytes.fromhex(said["transcript"])
    result = framed(b"coterie-compared-result-v1", bound)
    keys = {each["domain"]: bytes.fromhex(each["key"]) for each in said["offers"]}
    for what, of in (("goes in", bound), ("comes out", hashlib.sha256(result).digest())):
        masks = said[f"masks of what {what}"]
        assert summed([words(each) for each in masks.values()]) == [0] * 4
        secret = bytes.fromhex(said["secrets"]["east"])
        pairs = [
            pair_mask(of, "east", other, agreed(secret, keys[other]), 4)
            for other in ("north", "south")
        ]
        assert words(masks["east"]) == summed(pairs)


def test_signatures_under_ckks_are_of_what_the_file_says() -> None:
    said = CKKS["messages"]
    agreement, heard, chosen = (
        bytes.fromhex(said[name]) for name in ("agreement", "transcript", "set")
    )
    roster = unframed(agreement)[6:]
    keys = dict(zip(map(bytes.decode, roster[::2]), roster[1::2], strict=True))
    holder, tag = said["key_holder"], bytes.fromhex(said["tag"])
    public = bytes(range(256)) * 512
    adverts = {
        name: framed(b"coterie-ckks-advert-v1", agreement, name.encode(),
                     public if name == holder else b"")
        for name in keys
    }  # fmt: skip
    messages = framed(b"coterie-ckks-transcript-v1", *adverts.values())
    assert hashlib.sha256(messages).digest() == heard
    challenge = hashlib.sha256(framed(b"coterie-ckks-challenge-v1", chosen)).hexdigest()
    assert challenge == said["challenge"]
    for name, key in keys.items():
        for kind, message in (
            ("adverts", adverts[name]),
            ("joined", framed(b"coterie-ckks-joining-v1", heard, name.encode())),
            ("confirmations", framed(b"coterie-ckks-confirmation-v1", chosen, name.encode(), tag)),
        ):
            verifier = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.decode()))
            verifier.verify(bytes.fromhex(said[kind][name]), message)
