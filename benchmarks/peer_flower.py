"""Flower's plain FedAvg over three clients; see `benchmarks.round_peers`.

An app that Flower's SuperLink and SuperNodes load in processes of their own, on loopback. It
imports nothing of Coterie's. All settings are the defaults.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

sys.path.insert(0, str(Path(__file__).parent))
from peer_marks import mark

app = ServerApp()
client = ClientApp()


class MarkedFedAvg(FedAvg):
    """Notes when each round ends."""

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        found = super().aggregate_train(server_round, replies)
        mark()
        return found


@app.main()
def serve(grid: Grid, context: Context) -> None:
    """Run all rounds."""
    table = np.zeros(int(os.environ["PEER_SIZE"]), dtype=np.float32)
    strategy = MarkedFedAvg(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
    strategy.start(
        grid, ArrayRecord({"table": Array(table)}), num_rounds=int(os.environ["PEER_ROUNDS"])
    )


@client.train()
def train(message: Message, context: Context) -> Message:
    """Trivial local work."""
    table = message.content["arrays"]["table"].numpy() + np.float32(1e-3)
    answer = RecordDict({
        "arrays": ArrayRecord({"table": Array(table)}),
        "metrics": MetricRecord({"num-examples": 1}),
    })  # fmt: skip
    return Message(content=answer, reply_to=message)
