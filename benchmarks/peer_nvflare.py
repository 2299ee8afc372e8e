"""NVFlare's plain FedAvg over three clients; see `benchmarks.round_peers`.

Run by an interpreter that has NVFlare; imports nothing of Coterie's. Its simulator starts a process
for each client and connects them to the server on loopback; all its settings are the defaults.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.dxo import from_shareable
from nvflare.apis.executor import Executor
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.job_config.api import FedJob

sys.path.insert(0, str(Path(__file__).parent))
from peer_marks import mark


class MarkedFedAvg(FedAvg):
    """Notes when each round ends."""

    def load_model(self) -> FLModel:
        return FLModel(params={"table": np.zeros(int(os.environ["PEER_SIZE"]), dtype=np.float32)})

    def save_model(self, model: FLModel) -> None:
        mark()


class Adds(Executor):
    """Trivial local work."""

    def execute(self, task_name: str, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        found = from_shareable(shareable)
        found.data["table"] = found.data["table"] + np.float32(1e-3)
        return found.to_shareable()


if __name__ == "__main__":
    folder, rounds = sys.argv[1], int(sys.argv[2])
    job = FedJob(name="round", min_clients=3)
    job.to_server(MarkedFedAvg(num_clients=3, num_rounds=rounds))
    for index in range(3):
        job.to(Adds(), f"site-{index}", tasks=["train"])
    job.simulator_run(folder, clients=None, n_clients=None, threads=3, log_config="concise")
