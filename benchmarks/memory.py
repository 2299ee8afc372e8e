"""How much memory the engine's process takes for many users: they stream through it.

    python -m benchmarks.memory [--users 1000000] [--items 3706]

A data set of users with 100 interactions each is written to a folder, and one clipped, quantised
sum (d = 64) is made by a real engine process; its peak resident memory, file pages of the data set
included, must stay under 2 GiB.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.cases import EACH, Case
from domains.enclosure import Enclosure
from domains.interactions import Interactions, user_keys
from policies.users import Bounds

LARGEST_BYTES = 2 * 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=3_706)
    options = parser.parse_args()
    case = Case(options.items, options.users)
    bounds = Bounds(options.items, EACH, options.users)
    state = {name: tensor.numpy() for name, tensor in case.state.items()}
    with tempfile.TemporaryDirectory() as folder:
        many_users(options.users, options.items).save(Path(folder))
        with Enclosure(Path(folder), case.plan.to_json(), bounds) as engine:
            begin, opened = time.perf_counter(), peak_bytes(engine)
            engine.private_sum("s", state, np.ones(options.users, dtype=bool))
            seconds, peak = time.perf_counter() - begin, peak_bytes(engine)
    print(f"{options.users:,} users x {EACH} interactions, {options.items:,} items, d = 64")
    print(
        f"  engine process: peak {peak / 2**30:.2f} GiB (under 2), {opened / 2**30:.2f} GiB when "
        f"opened; {seconds:.0f} s a round, {options.users / seconds:,.0f} users a second"
    )
    if peak >= LARGEST_BYTES:
        raise SystemExit("The bar is missed.")


def many_users(users: int, items: int) -> Interactions:
    """Users with 100 different items each, an arithmetic sequence modulo the catalogue."""
    random = np.random.default_rng(0)
    start = random.integers(0, items, (users, 1), dtype=np.int64)
    names = tuple(f"u{number}" for number in range(users))
    return Interactions(
        names=names,
        indptr=np.arange(users + 1) * EACH,
        items=((start + 7 * np.arange(EACH)) % items).reshape(-1),
        values=np.ones(users * EACH, dtype=np.float32),
        targets=np.full(users, -1),
        keys=user_keys(names),
    )


def peak_bytes(engine: Enclosure) -> int:
    """Peak resident memory of the engine's process."""
    status = Path(f"/proc/{engine._process.pid}/status").read_text()
    facts = dict(line.split(":", 1) for line in status.splitlines())
    return int(facts["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    main()
