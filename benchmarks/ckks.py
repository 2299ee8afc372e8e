"""What summing under CKKS costs beside the default masks, in one run.

    python -m benchmarks.ckks            the sum: CPU, bytes and error for three domains
    python -m benchmarks.ckks --round    whole rounds of three nodes in processes of their own

Both protocols alternate; medians. Ratios carry over to other machines, times don't.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.smpc import Memory, SecureSum, fixed_point
from network.smpc.ckks.coordination import CkksCoordinator
from network.smpc.ckks.messages import key_holder, pack_ciphertexts
from network.smpc.ckks.party import CkksParty

SIZE, REPEATS = 1_000_000, 5


class EncryptedSum(SecureSum):
    """One sum under CKKS in this process, with the CPU that each party spent."""

    def __init__(self, parties: int, size: int, bits: int) -> None:
        super().__init__(parties, size, bits)
        self._encrypting = {
            name: CkksParty(name, self.agreement, party._signing_key, Memory())
            for name, party in self._parties.items()
        }
        self.received = dict.fromkeys(self._values, 0)

    def run(self) -> None:
        coordinator = CkksCoordinator(self.agreement, self._exchange)
        began = time.process_time()
        opened = coordinator.finish(coordinator.begin())
        self.opening = time.process_time() - began - sum(self.cpu.values())
        exact = np.sum([fixed_point(v) for v in self._values.values()], axis=0)
        self.wrong = int((opened.total != exact).sum())

    def _ask(self, phase: str, name: str, told: Any) -> Any:
        party = self._encrypting[name]
        answer: Any
        began = time.process_time()
        if phase == "advertise":
            answer = party.advertise()
        elif phase == "share":
            answer = party.share(told)
        elif phase == "reveal":
            answer = party.mask(fixed_point(self._values[name]), told)
            self.sent[name] += pack_ciphertexts(*answer).nbytes
        elif phase == "confirm":
            answer = party.confirm(*told)
        else:
            answer = party.unmask(*told)
            self.received[name] += 0 if told[1] is None else told[1].nbytes
        self.cpu[name] += time.process_time() - began
        return answer


def compare(size: int, bits: int) -> dict[str, Any]:
    """Medians over alternating runs of both."""
    found: dict[str, list[float]] = {"masks": [], "ckks": [], "holder": [], "hub": []}
    for _ in range(REPEATS):
        masked, encrypted = SecureSum(3, size, bits), EncryptedSum(3, size, bits)
        masked.run()
        encrypted.run()
        holder = key_holder(encrypted.agreement)
        found["masks"].append(statistics.median(masked.cpu.values()))
        found["ckks"].append(min(cpu for n, cpu in encrypted.cpu.items() if n != holder))
        found["holder"].append(encrypted.cpu[holder])
        found["hub"].append(encrypted.opening)
    middle = {name: statistics.median(values) for name, values in found.items()}
    return {
        "size": size,
        "ring": bits,
        "masks_party_ms": round(1e3 * middle["masks"], 1),
        "ckks_party_ms": round(1e3 * middle["ckks"], 1),
        "ckks_key_holder_ms": round(1e3 * middle["holder"], 1),
        "ckks_hub_and_checks_ms": round(1e3 * middle["hub"], 1),
        "cpu_ratio": round(middle["ckks"] / middle["masks"], 1),
        "masks_sent_mb": round(max(masked.sent.values()) / 1e6, 2),
        "ckks_sent_mb": round(max(encrypted.sent.values()) / 1e6, 2),
        "ckks_to_key_holder_mb": round(max(encrypted.received.values()) / 1e6, 2),
        "bytes_ratio": round(max(encrypted.sent.values()) / max(masked.sent.values()), 2),
        "ckks_wrong_numbers": encrypted.wrong,
    }


def whole_rounds(size: int, releases: int) -> None:
    """Three nodes on loopback, trivial local work, noise on, under either protocol."""
    import torch

    import coterie as ct
    from tests.network_of_three import NAMES, Network

    def contribution(state: Any, user: Any) -> Mapping[str, Any]:
        return {"total": state["model"] * 0 + user.mask.sum() * 1e-6}

    with tempfile.TemporaryDirectory() as folder:
        network = Network.create(Path(folder) / "home")
        try:
            plan = ct.Plan(
                name="round", purpose="benchmark", data=network.federation.data("interactions"),
                steps=[ct.Sum("sum", contribution, clip_norm=1.0, releases=releases)],
                state={"model": torch.zeros(size)}, epsilon=2.0,
            )  # fmt: skip
            encrypted = replace(plan, aggregation="ckks", _bound={})
            for each in (plan, encrypted):
                network.submit_and_approve(each)
                run = network.federation.train(each, Path(folder) / each.aggregation)
                last = run.history[-1]
                bound = network.federation.bind(each)
                print(json.dumps({
                    "aggregation": each.aggregation, "size": size, "ring": bound.steps[0].ring,
                    "wall_s": [round(sum(p.seconds.values()), 2) for p in run.history],
                    "phases": dict(last.seconds),
                    "up_mb": round(max(last.received[n] for n in NAMES) / 1e6, 2),
                    "down_mb": round(max(last.sent[n] for n in NAMES) / 1e6, 2),
                }))  # fmt: skip
        finally:
            network.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--round", action="store_true", help="whole rounds instead of the sum")
    parser.add_argument("--size", type=int, default=SIZE)
    options = parser.parse_args()
    if options.round:
        whole_rounds(options.size, releases=3)
        return
    for bits in (32, 64):
        print(json.dumps(compare(options.size if bits == 32 else options.size // 3, bits)))


if __name__ == "__main__":
    main()
