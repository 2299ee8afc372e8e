"""One party's CPU for a secret product in SPU; run by an interpreter that has it.

    PYTHON benchmarks/tensor_peers.py SEMI2K "matrix 512"

This file imports nothing of Coterie's. Three parties are threads of one process, and each is given
a third of its CPU.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

PARTIES, REPEATS = 3, 5


def main() -> None:
    import spu.libspu
    import spu.utils.simulation as simulation

    protocol, case = sys.argv[1:]
    kind = getattr(spu.libspu.ProtocolKind, protocol)
    simulator = simulation.Simulator.simple(PARTIES, kind, spu.libspu.FieldType.FM64)
    random = np.random.default_rng(0)
    shape = (512, 512) if case == "matrix 512" else (1_000_000,)
    x, y = (random.normal(size=shape).astype(np.float32) for _ in range(2))

    def product(a: Any, b: Any) -> Any:
        return a @ b if case == "matrix 512" else a * b

    def nothing(a: Any, b: Any) -> Any:
        return a + b

    whole, opened = timed(simulation.sim_jax(simulator, product), x, y)
    rest, _ = timed(simulation.sim_jax(simulator, nothing), x, y)
    exact = product(x.astype(float), y.astype(float))
    error = float(np.abs(opened - exact).max())
    print(json.dumps({"cpu_ms": whole, "net_ms": whole - rest, "max_error": error}))


def timed(work: Callable[..., Any], x: Any, y: Any) -> tuple[float, Any]:
    work(x, y)  # compiles
    spent = []
    for _ in range(REPEATS):
        began = time.process_time()
        opened = np.asarray(work(x, y))
        spent.append(1000 * (time.process_time() - began) / PARTIES)
    return statistics.median(spent), opened


if __name__ == "__main__":
    main()
