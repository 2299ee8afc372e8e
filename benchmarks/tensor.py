"""Secret products: CPU of one of three parties and the error, ours and SPU's.

    OMP_NUM_THREADS=1 python -m benchmarks.tensor [--peer PYTHON]

`--peer`: an interpreter that has SPU (`pip install spu==0.9.5`). The elementwise product of
1,000,000 numbers and the product of two 512x512 matrices, medians of five. *Online* is what is done
once both factors and a checked triple are there: differences, their digests, what the others sent,
and the combination. Drawing, dealing and checking the triple is *offline*. SPU draws its triples
within its product and has no such line, so it is given twice: as it is, and without what one
sharing and opening of the same numbers costs.
"""

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from network.smpc.agreement import among_all
from network.smpc.attempt import Context
from network.smpc.dealing import Computation, deal, digest_of_words
from network.smpc.triples import Factors
from network.smpc.truncation import Truncation

SCALE = 2**22
REPEATS = 5
TRUNCATED = Truncation(length=8000, bound=62, dropped=SCALE.bit_length() - 1)
CASES = {
    "elementwise 1e6": Factors((1_000_000,), (1_000_000,), matrices=False),
    "matrix 512": Factors((512, 512), (512, 512), matrices=True),
}


class Product:
    """One product in this process; CPU seconds of each stage, per party."""

    def __init__(self, factors: Factors) -> None:
        self.factors = factors
        self.spent: dict[str, float] = {}
        random = np.random.default_rng(0)
        self.x, self.y = (random.normal(size=size) for size in factors.sizes[:2])
        names = ("a", "b", "c")
        keys = {name: Ed25519PrivateKey.generate() for name in names}
        dealer = Ed25519PrivateKey.generate()
        length = factors.sizes[2]
        context = Context("ab" * 32, "multiply", 0, 0, f"{'0' * 64}/{length}")
        roster = {name: public(key) for name, key in keys.items()}
        self.agreement = among_all(context, roster, 1, length)
        x, y = (shares(values, random) for values in (self.x, self.y))
        self.parties = [
            Computation(name, self.agreement, key, public(dealer), factors, [x[i], y[i]])
            for i, (name, key) in enumerate(keys.items())
        ]
        self._dealer = dealer

    def run(self) -> None:
        signed = [party.signed_key for party in self.parties]
        dealt, corrections = self._timed(
            "dealer", lambda: deal(self.agreement, self.factors, signed, self._dealer), 1
        )
        coins = self._timed(
            "offline", lambda: [p.take(signed, dealt, corrections) for p in self.parties]
        )
        self._timed("offline", lambda: self._exchange([p.opening(coins) for p in self.parties]))
        self._timed("offline", lambda: self._exchange([p.check() for p in self.parties]))
        found = [party.result() for party in self.parties]
        self._timed("online", self._online)
        total = np.sum(found, axis=0, dtype=np.uint64).view(np.int64) / SCALE**2
        shaped = self.x.reshape(self.factors.x), self.y.reshape(self.factors.y)
        exact = shaped[0] @ shaped[1] if self.factors.matrices else shaped[0] * shaped[1]
        self.error = float(np.abs(total - exact.reshape(-1)).max())

    def _exchange(self, told: list[Any]) -> None:
        exchange(self.parties, told)

    def _online(self) -> None:
        told = [party.differences() for party in self.parties]
        for party in self.parties:
            # One's own digest to sign, and the others' to compare.
            opened = np.zeros_like(told[0])
            for words in told:
                digest_of_words(words)
                opened += words
            party.combined()

    def _timed(self, stage: str, work: Callable[[], Any], parties: int = 3) -> Any:
        began = time.process_time()
        found = work()
        self.spent[stage] = self.spent.get(stage, 0.0) + (time.process_time() - began) / parties
        return found


def truncated() -> dict[str, float]:
    """CPU seconds of one party and of the dealer for one truncation."""
    random = np.random.default_rng(0)
    names, length = ("a", "b", "c"), TRUNCATED.drawn[-1]
    keys = {name: Ed25519PrivateKey.generate() for name in names}
    dealer = Ed25519PrivateKey.generate()
    context = Context("ab" * 32, "multiply", 0, 0, f"{'0' * 64}/{length}")
    roster = {name: public(key) for name, key in keys.items()}
    agreement = among_all(context, roster, 1, length)
    parts = shares(random.normal(size=TRUNCATED.length), random)
    parties = [
        Computation(name, agreement, keys[name], public(dealer), TRUNCATED, [part])
        for name, part in zip(names, parts, strict=True)
    ]
    signed = [party.signed_key for party in parties]
    began = time.process_time()
    dealt, corrections = deal(agreement, TRUNCATED, signed, dealer)
    taken = time.process_time()
    coins = [party.take(signed, dealt, corrections) for party in parties]
    exchange(parties, [party.opening(coins) for party in parties])
    exchange(parties, [party.check() for party in parties])
    for party in parties:
        party.result()
    return {"dealer": taken - began, "party": (time.process_time() - taken) / 3}


def exchange(parties: list[Computation], told: list[Any]) -> None:
    for receiver in parties:
        for said, words in told:
            if said.domain != receiver.me:
                receiver.hear(said, words)


def public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


def shares(values: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    units = np.rint(values * SCALE).astype(np.int64).view(np.uint64)
    first, second = (random.integers(0, 2**64, values.size, np.uint64) for _ in range(2))
    return [first, second, units - first - second]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter that has SPU")
    peer = parser.parse_args().peer
    spent = [truncated() for _ in range(REPEATS)]
    party, dealer = (
        1000 * statistics.median(each[who] for each in spent) for who in ("party", "dealer")
    )
    print(
        f"truncation of {TRUNCATED.length} numbers of {TRUNCATED.bound} bits: {party:.1f} ms, "
        f"dealer {dealer:.1f} ms of CPU"
    )
    for name, factors in CASES.items():
        runs = [Product(factors) for _ in range(REPEATS)]
        for run in runs:
            run.run()
        ms = {s: 1000 * statistics.median(r.spent[s] for r in runs) for s in runs[0].spent}
        print(
            f"{name}: online {ms['online']:.1f} ms, offline {ms['offline']:.1f} ms, dealer "
            f"{ms['dealer']:.1f} ms of CPU; largest error {max(r.error for r in runs):.1e}"
        )
        for protocol in ("SEMI2K", "ABY3") if peer else ():
            found = ask_peer(str(peer), protocol, name)
            print(
                f"  SPU {protocol}: {found['cpu_ms']:.1f} ms ({found['net_ms']:.1f} without "
                f"sharing and opening), {found['net_ms'] / ms['online']:.2f} times ours online; "
                f"largest error {found['max_error']:.1e}"
            )


def ask_peer(python: str, protocol: str, case: str) -> dict[str, float]:
    """A party's CPU and the error in SPU."""
    script = os.path.join(os.path.dirname(__file__), "tensor_peers.py")
    told = subprocess.run(
        [python, script, protocol, case], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, float] = json.loads(told.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
