"""How long a large plan takes to be traced, quoted, read, admitted and explained.

    python -m benchmarks.plans

A SASRec-style plan with a state of 10 MB (81,920 items of 32 numbers), thirty training rounds and
evaluations. Medians of five runs; each admission in a process of its own, forked as a node forks
it. To reach: admission under 2 s, quote under 1 s.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from domains.examination import admit
from network.program import DataSet, Gradient, Plan, Sum
from policies.accounting import plan_epsilon
from policies.plan import Plan as ApprovablePlan
from policies.plan import RosterEntry
from policies.users import Bounds

ITEMS, WIDTH, SIZE, RUNS = 81_920, 100, 32, 5
LARGEST_ADMISSION_S, LARGEST_QUOTE_S = 2.0, 1.0


class SASRec(nn.Module):
    """Kang and McAuley 2018, two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, SIZE)
        self.positions = nn.Embedding(WIDTH, SIZE)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(SIZE, 2, 4 * SIZE, 0.0, batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.register_buffer("order", torch.arange(WIDTH))

    def forward(self, items: Tensor) -> Tensor:
        mask = torch.ones(WIDTH, WIDTH, dtype=torch.bool).triu(1)
        hidden = (self.items(items) + self.positions(self.order))[None]
        for layer in self.layers:
            hidden = layer(hidden, src_mask=mask)
        return hidden[0]


def loss(model: SASRec, user: object) -> Tensor:
    """Sampled softmax over the next item and two negatives."""
    hidden = model(user.items)[:-1]  # type: ignore[attr-defined]
    shared = user.negatives[:2].expand(WIDTH - 1, 2)  # type: ignore[attr-defined]
    candidates = torch.cat([user.items[1:, None], shared], 1)  # type: ignore[attr-defined]
    logits = (hidden[:, None] * model.items(candidates)).sum(-1)
    return -(user.mask[1:] * fn.log_softmax(logits, 1)[:, 0]).sum()  # type: ignore[attr-defined]


def evaluate(model: SASRec, user: object) -> dict[str, Tensor]:
    """Hits among ten of the sampled negatives."""
    mine = model(user.items)[-1]  # type: ignore[attr-defined]
    rivals = model.items(user.negatives) @ mine  # type: ignore[attr-defined]
    target = model.items(user.target) @ mine  # type: ignore[attr-defined]
    hit = user.has_target * ((rivals > target).sum() < 10)  # type: ignore[attr-defined]
    return {"hits": torch.stack([hit, user.has_target])}  # type: ignore[attr-defined]


def written() -> Plan:
    """The plan as its author has it."""
    data = DataSet("clicks", ITEMS, WIDTH, 30_000, "0" * 64, False)
    steps: list[Sum | Gradient] = [
        Gradient("train", loss, releases=30, weight=0.9),
        Sum("evaluate", evaluate, 1.5, 6, 0.1, after="train", every=5),
    ]
    return Plan("sasrec", "speed", data, steps, model=SASRec().eval())


def seconds(function: Callable[[], object]) -> float:
    """Median of `RUNS` runs."""
    found = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        function()
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def main() -> None:
    """Print the medians and whether they reach the bars."""
    torch.set_num_threads(1)
    roster = [
        RosterEntry(name=n, server_uid=n * 32, node_key=k * 64, owner_key=k * 64)
        for n, k in (("a", "1"), ("b", "2"), ("c", "3"))
    ]
    begin = time.perf_counter()
    plan = written().bind(roster, "0" * 64)
    first = time.perf_counter() - begin
    text, bounds = plan.to_json(), Bounds(ITEMS, WIDTH, 10_000)
    state = sum(tensor.numel() * 4 for tensor in written().state.values())
    nodes = sum(len(step.graph.nodes) for step in plan.steps)
    print(f"state {state / 2**20:.1f} MiB, {nodes} operations, text {len(text) / 2**10:.0f} KiB")
    print(f"trace and calibrate   {first:6.3f} s (once)")
    admit(plan, bounds, public=False)  # a node loads what it forks from when it starts
    reading = seconds(lambda: ApprovablePlan.from_json(text))
    admission = seconds(lambda: admit(ApprovablePlan.from_json(text), bounds, public=False))
    quote = seconds(lambda: plan_epsilon(plan.events(), plan.delta)) + admission
    explaining = seconds(plan.explain)
    print(f"read                  {reading:6.3f} s")
    print(f"read and admit        {admission:6.3f} s (under {LARGEST_ADMISSION_S:g})")
    print(f"quote, admission too  {quote:6.3f} s (under {LARGEST_QUOTE_S:g})")
    print(f"explain               {explaining:6.3f} s")
    if admission >= LARGEST_ADMISSION_S or quote >= LARGEST_QUOTE_S:
        raise SystemExit("A bar is missed.")


if __name__ == "__main__":
    main()
