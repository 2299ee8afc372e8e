"""What a secure sum costs beside the parts it can't do without, and beside TenSEAL's CKKS.

    python -m benchmarks.smpc            the sum: CPU per party, error, bytes, growth
    python -m benchmarks.smpc --round    a whole round of three nodes in processes of their own

Everything compared is measured in the same run, alternating, as medians; ratios carry over to other
machines, times don't. TenSEAL is compared where it is installed (`pip install tenseal==0.3.18`).
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from network.smpc.aggregation import Party
from network.smpc.coordination import Coordinator
from network.smpc.messages import Agreement, Context, pack_masked

SCALE = 2**22
SIZE = 1_000_000
REPEATS = 9


class Memory(dict[str, bytes | memoryview]):
    """A store without a disk: what is measured is computing."""

    def read(self, name: str) -> Any:
        return self.get(name)

    def write(self, name: str, content: bytes | memoryview) -> None:
        self[name] = content

    def erase(self, name: str) -> None:
        self.pop(name, None)


def cpu(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def fixed_point(values: np.ndarray) -> np.ndarray:
    return np.rint(values.astype(np.float64) * SCALE).astype(np.int64)


def unavoidable(parties: int, values: np.ndarray, bits: int) -> float:
    """Conversion, a keystream per peer and one for the self-mask, one pass of additions."""
    zeros, size = bytes(2**18), values.size * bits // 8
    buffer = bytearray(2**18 + 15)

    def keystream() -> None:
        stream = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
        for begin in range(0, size, 2**18):
            part = min(2**18, size - begin)
            stream.update_into(zeros[:part], buffer)

    accumulator = np.zeros(values.size, dtype=f"u{bits // 8}")
    other = np.ones_like(accumulator)
    spent = cpu(lambda: fixed_point(values))
    spent += sum(cpu(keystream) for _ in range(parties))
    return spent + cpu(lambda: np.add(accumulator, other, out=accumulator))


class SecureSum:
    """One secure sum in this process, with the CPU that each party spent."""

    def __init__(self, parties: int, size: int, bits: int) -> None:
        names = [f"domain-{i:02d}" for i in range(parties)]
        keys = {name: Ed25519PrivateKey.generate() for name in names}
        roster = {name: key.public_key().public_bytes_raw().hex() for name, key in keys.items()}
        t = max(1, (parties - 1) // 2)
        context = Context("ab" * 32, "benchmark", 0, 0)
        tau = (parties + t) // 2 + 1
        self.agreement = Agreement(context, roster, tau, t, size, bits)
        self._parties = {name: Party(name, self.agreement, keys[name], Memory()) for name in names}
        self._values = {n: np.random.default_rng(i).normal(size=size).astype(np.float32)
                        for i, n in enumerate(names)}  # fmt: skip
        self.cpu = dict.fromkeys(names, 0.0)
        self.sent = dict.fromkeys(names, 0)

    def run(self) -> None:
        coordinator = Coordinator(self.agreement, self._exchange)
        began = time.process_time()
        opened = coordinator.finish(coordinator.begin())
        self.opening = time.process_time() - began - sum(self.cpu.values())
        exact = np.sum([v.astype(np.float64) for v in self._values.values()], axis=0)
        self.error = float(np.abs(opened.total / SCALE - exact).max())

    def _exchange(self, phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._ask(phase, name, told) for name, told in arguments.items()}

    def _ask(self, phase: str, name: str, told: Any) -> Any:
        party = self._parties[name]
        answer: Any
        began = time.process_time()
        if phase == "advertise":
            answer = party.advertise()
        elif phase == "share":
            answer = party.share(told)
        elif phase == "reveal":
            answer = party.mask(fixed_point(self._values[name]), told)
        elif phase == "confirm":
            answer = party.confirm(told)
        else:
            answer = party.unmask(told)
        self.cpu[name] += time.process_time() - began
        self.sent[name] += _bytes_of(phase, answer)
        return answer


def _bytes_of(phase: str, answer: Any) -> int:
    if phase == "reveal":
        return pack_masked(*answer).nbytes
    said = [message.to_dict() for message in answer] if phase == "share" else answer.to_dict()
    return len(json.dumps(said))


def ckks(values: np.ndarray, parties: int) -> float:
    """CPU of one party that encrypts its vector with TenSEAL."""
    import tenseal

    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40, 60], n_threads=1
    )
    context.global_scale = 2**40
    slots = 4096

    def encrypt() -> None:
        for begin in range(0, values.size, slots):
            tenseal.ckks_vector(context, values[begin : begin + slots].tolist()).serialize()

    return cpu(encrypt)


def compare(parties: int, size: int, bits: int) -> dict[str, Any]:
    sums, parts = [], []
    values = np.random.default_rng(0).normal(size=size).astype(np.float32)
    SecureSum(parties, size, bits).run()
    for _ in range(REPEATS):
        parts.append(unavoidable(parties, values, bits))
        one = SecureSum(parties, size, bits)
        one.run()
        sums.append(statistics.median(one.cpu.values()))
    found = {
        "parties": parties,
        "size": size,
        "ring": bits,
        "party_ms": 1e3 * statistics.median(sums),
        "unavoidable_ms": 1e3 * statistics.median(parts),
        "ratio": statistics.median(sums) / statistics.median(parts),
        "opening_ms": 1e3 * one.opening,
        "max_error": one.error,
        "bytes_ratio": max(one.sent.values()) / (size * bits // 8),
    }
    return {name: round(v, 8) if isinstance(v, float) else v for name, v in found.items()}


def growth() -> None:
    for size in (10**6, 10**7):
        one = SecureSum(3, size, 64)
        one.run()
        spent = statistics.median(one.cpu.values())
        print(
            json.dumps({"parties": 3, "size": size, "ns_per_element": round(1e9 * spent / size, 2)})
        )
    for parties in (3, 8, 16, 32, 64):
        one = SecureSum(parties, 10**5, 64)
        one.run()
        spent = statistics.median(one.cpu.values())
        print(json.dumps({"parties": parties, "size": 10**5,
                          "party_ms_per_party": round(1e3 * spent / parties, 3)}))  # fmt: skip


def streaming(size: int) -> None:
    """Peak memory of one party's masking, beyond the vector and its masked copy."""
    from network.smpc.masks import Mask, apply

    vector = np.zeros(size, dtype=np.uint64)
    vector[:] = 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent = cpu(lambda: apply(vector, [Mask(os.urandom(32)) for _ in range(3)]))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"size": size, "masking_s": round(spent, 2),
                      "extra_mb": round((after - before) / 1024, 1)}))  # fmt: skip


def whole_round(size: int, releases: int) -> None:
    """Three nodes on loopback, trivial local work, SMPC and noise on."""
    import torch

    import coterie as ct
    from tests.network_of_three import NAMES, Network

    def contribution(state: Any, user: Any) -> Any:
        return {"total": state["model"] * 0 + user.mask.sum() * 1e-6}

    with tempfile.TemporaryDirectory() as folder:
        network = Network.create(Path(folder) / "home")
        try:
            plan = ct.Plan(
                name="round", purpose="benchmark", data=network.federation.data("interactions"),
                steps=[ct.Sum("sum", contribution, clip_norm=1.0, releases=releases)],
                state={"model": torch.zeros(size)}, epsilon=2.0,
            )  # fmt: skip
            network.submit_and_approve(plan)
            began = [time.monotonic()]
            run = network.federation.train(
                plan, Path(folder) / "run", lambda _: began.append(time.monotonic())
            )
            walls = np.diff(began)
            last = run.history[-1]
            print(json.dumps({
                "size": size, "ring": network.federation.bind(plan).steps[0].ring,
                "wall_s": [round(float(w), 2) for w in walls], "phases": dict(last.seconds),
                "up_mb": round(last.received[NAMES[0]] / 1e6, 3),
                "down_mb": round(last.sent[NAMES[0]] / 1e6, 3),
            }))  # fmt: skip
        finally:
            network.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--round", action="store_true", help="a whole round instead of the sum")
    parser.add_argument("--size", type=int, default=SIZE)
    options = parser.parse_args()
    if options.round:
        whole_round(options.size, releases=4)
        return
    for bits in (64, 32):
        print(json.dumps(compare(3, options.size, bits)))
    growth()
    streaming(10**8)
    if importlib.util.find_spec("tenseal") is not None:
        values = np.random.default_rng(0).normal(size=options.size)
        one = SecureSum(3, options.size, 64)
        one.run()
        ratio = ckks(values, 3) / statistics.median(one.cpu.values())
        print(json.dumps({"tenseal_ckks_over_smpc": round(ratio, 1)}))


if __name__ == "__main__":
    main()
