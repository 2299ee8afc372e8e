"""What a secure sum costs beside the parts it can't do without, and beside TenSEAL's CKKS.

    python -m benchmarks.smpc [--long] [--peer spu=PYTHON] [--peer mpyc=PYTHON] ...

Everything compared is measured in the same run, alternating, as medians; ratios carry over to other
machines, times don't. TenSEAL is compared where it is installed (`pip install tenseal==0.3.18`),
other systems in environments of their own (`pip install spu==0.9.5`, `mpyc==0.11 numpy`,
`flwr==1.41.0`).
A whole round: benchmarks.round.
"""

import argparse
import importlib.util
import json
import mmap
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks.peak import PeakMemory
from network.smpc import ring
from network.smpc.aggregation import Party
from network.smpc.attempt import Agreement, Context
from network.smpc.coordination import Begun, Coordinator
from network.smpc.inputs import masked_file
from network.smpc.messages import pack_masked

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
        return sum(part.nbytes for part in pack_masked(*answer).parts)
    said = [message.to_dict() for message in answer] if phase == "share" else answer.to_dict()
    return len(json.dumps(said))


def ckks(values: np.ndarray) -> float:
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


def _spent_by_one(size: int) -> float:
    """CPU of one of three parties, in seconds."""
    one = SecureSum(3, size, 64)
    one.run()
    return statistics.median(one.cpu.values())


def growth() -> None:
    for size in (10**6, 10**7):
        # Memory that the machine never gave out before takes longer to touch than all else.
        spent = min(_spent_by_one(size) for _ in range(4))
        print(
            json.dumps({"parties": 3, "size": size, "ns_per_element": round(1e9 * spent / size, 2)})
        )
    for parties in (3, 8, 16, 32, 64):
        one = SecureSum(parties, 10**5, 64)
        one.run()
        spent = statistics.median(one.cpu.values())
        print(json.dumps({"parties": parties, "size": 10**5,
                          "party_ms_per_party": round(1e3 * spent / parties, 3)}))  # fmt: skip


class File:
    """A store in a folder, as a node's: long contents aren't held in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> Any:
        path = self._folder / name
        if not path.exists():
            return None
        if path.stat().st_size <= 2**20:
            return path.read_bytes()
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def write(self, name: str, content: bytes | memoryview) -> None:
        (self._folder / name).write_bytes(content)

    def erase(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)


def streaming(size: int, bits: int) -> None:
    """One party's masking and the hub's opening: CPU, and peak memory beyond one vector."""
    keys = {f"domain-{i}": Ed25519PrivateKey.generate() for i in range(3)}
    roster = {name: key.public_key().public_bytes_raw().hex() for name, key in keys.items()}
    agreement = Agreement(Context("ab" * 32, "benchmark", 0, 0), roster, 3, 1, size, bits)
    with tempfile.TemporaryDirectory() as folder:
        parties = {}
        for name in keys:
            (Path(folder) / name).mkdir()
            parties[name] = Party(name, agreement, keys[name], File(Path(folder) / name))
        adverts = tuple(party.advertise() for party in parties.values())
        dealt = tuple(each for party in parties.values() for each in party.share(adverts))
        masking: dict[str, float] = {}

        def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
            if phase == "confirm":
                opening.reset()
                return {name: parties[name].confirm(told) for name, told in arguments.items()}
            if phase == "unmask":
                return {name: parties[name].unmask(told) for name, told in arguments.items()}
            return {name: answered(name, told) for name, told in arguments.items()}

        def answered(name: str, told: Any) -> Any:
            vector = np.full(size, -5, dtype=np.int64)
            with PeakMemory() as peak:
                masking["spent"] = cpu(lambda: parties[name].mask(vector, told))
            masking["extra_mb"] = peak.extra_mb
            receipt, elements = parties[name].masked() or (None, vector)
            kept = masked_file(Path(folder), agreement, name)
            with kept.open("wb") as file:
                file.write(ring.header(elements))
                file.write(elements.data)
            return receipt, ring.framed_file(kept, size, bits)

        opening = PeakMemory()
        began = time.process_time()
        opened = Coordinator(agreement, exchange).finish(Begun(adverts, dealt, tuple(keys)))
        spent = time.process_time() - began
        extra = opening.stop() - 8 * size / 1e6
        assert opened.total.min() == opened.total.max() == -15
    print(json.dumps({
        "size": size, "ring": bits,
        "masking_ns_per_element": round(1e9 * masking["spent"] / size, 2),
        "masking_extra_mb": round(masking["extra_mb"], 1),
        "all_ns_per_element": round(1e9 * spent / size, 2),
        "opening_extra_mb": round(extra, 1),
    }))  # fmt: skip


def peers(pythons: Mapping[str, str], ours: float) -> None:
    """Other systems, each by an interpreter that has it, right after a run of ours."""
    script = str(Path(__file__).with_name("smpc_peers.py"))
    for name, python in pythons.items():
        # MPyC's time is linear in the size; a million numbers take it gigabytes.
        size = SIZE // 5 if name == "mpyc" else SIZE
        command = [python, script, name, str(size), *(["-M3"] if name == "mpyc" else [])]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        found = json.loads(next(line for line in said.stdout.splitlines() if line[:1] == "{"))
        found["over_ours"] = round(found["cpu_s"] / size * SIZE / ours, 1)
        print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON",
                        help="flower, mpyc or spu, and the interpreter that has it")  # fmt: skip
    parser.add_argument("--long", action="store_true", help="also a vector of 1e8 elements")
    options = parser.parse_args()
    for bits in (64, 32):
        print(json.dumps(compare(3, options.size, bits)))
    growth()
    for size in (10**6, 10**7, *([10**8] if options.long else [])):
        for bits in (64, 32):
            streaming(size, bits)
    ours = compare(3, SIZE, 64)["party_ms"] / 1e3
    peers(dict(each.split("=", 1) for each in options.peer), ours)
    if importlib.util.find_spec("tenseal") is None:
        print("TenSEAL isn't installed, so CKKS isn't compared.")
        return
    values = np.random.default_rng(0).normal(size=options.size)
    print(json.dumps({"tenseal_ckks_over_ours": round(ckks(values) / ours, 1)}))


if __name__ == "__main__":
    main()
