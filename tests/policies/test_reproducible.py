"""The same plan has the same text and hash in every process, whatever the machine is set to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRINT = """
import torch
{before}
from torch import nn
from network.program import DataSet, Gradient, Plan, Sum
from policies.plan import RosterEntry

torch.manual_seed(0)
data = DataSet("clicks", 12, 6, 300, "0" * 64, False)
roster = [RosterEntry(name=n, server_uid=n * 32, node_key=k * 64, owner_key=k * 64)
          for n, k in (("a", "1"), ("b", "2"), ("c", "3"))]
model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 12))

def loss(model, user):
    return nn.functional.cross_entropy(model(user.values)[None], user.target[None])

def count(model, user):
    return {{"counts": torch.zeros(12).scatter_add(0, user.items, user.mask)}}

steps = [Sum("count", count, 2.0), Gradient("train", loss, releases=30, sampling_rate=0.25)]
print(Plan("plan", "to learn", data, steps, model=model, epsilon=8.0).bind(roster, "0" * 64).hash)
"""

SETTINGS: dict[str, tuple[dict[str, str], str]] = {
    "one thread, Turkish, far east": (
        {
            "OMP_NUM_THREADS": "1",
            "LC_ALL": "tr_TR.UTF-8",
            "TZ": "Asia/Tokyo",
            "PYTHONHASHSEED": "1",
        },
        "torch.set_num_threads(1)",
    ),
    "many threads, C, far west": (
        {"OMP_NUM_THREADS": "4", "LC_ALL": "C", "TZ": "America/Adak", "PYTHONHASHSEED": "12345"},
        "torch.set_num_threads(4)",
    ),
    "another precision of products, no optimised instructions": (
        {"ATEN_CPU_CAPABILITY": "default", "PYTHONHASHSEED": "0", "PYTHONOPTIMIZE": "1"},
        'torch.set_float32_matmul_precision("medium")',
    ),
}


@pytest.fixture(scope="module")
def hashes() -> dict[str, str]:
    """By setting; the processes run at once."""
    running = {
        name: subprocess.Popen(
            [sys.executable, "-c", PRINT.format(before=before)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **settings},
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, (settings, before) in SETTINGS.items()
    }
    return {name: process.communicate(timeout=500)[0].strip() for name, process in running.items()}


def test_the_hash_hangs_on_no_setting_of_the_process(hashes: dict[str, str]) -> None:
    assert len(next(iter(hashes.values()))) == 64
    assert len(set(hashes.values())) == 1, hashes
