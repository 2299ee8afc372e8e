"""One party's CPU for a secure sum in another system; run by that system's own interpreter.

    PYTHON -m benchmarks.smpc --peer mpyc=PYTHON --peer spu=PYTHON --peer flower=PYTHON

This file imports nothing of Coterie's. Each prints the CPU seconds that one of three parties spends
on `size` float32 and the largest error.
"""

import json
import sys
import time
from typing import Any

import numpy as np

PARTIES = 3


def vectors(size: int) -> list[Any]:
    return [np.random.default_rng(i).normal(size=size).astype(np.float32) for i in range(PARTIES)]


def flower(size: int) -> tuple[float, float]:
    """What SecAgg+'s client does with its vector: quantise, weigh, one mask per peer and its own.

    The functions of `flwr.compat...secaggplus_mod` in its order; key agreement and shares are left
    out, to Flower's advantage.
    """
    from flwr.common.secure_aggregation.ndarrays_arithmetic import (
        factor_combine,
        parameters_addition,
        parameters_mod,
        parameters_subtraction,
    )
    from flwr.common.secure_aggregation.quantization import quantize
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    values = vectors(size)[0]
    modulus, target, clip = 2**32, 2**22, 8.0
    began = time.process_time()
    quantised = factor_combine(1, quantize([values], clip, target))
    shapes = [array.shape for array in quantised]
    masked = parameters_addition(quantised, pseudo_rand_gen(b"own!" * 8, modulus, shapes))
    for sign in (parameters_addition, parameters_subtraction):
        masked = sign(masked, pseudo_rand_gen(b"pair" * 8, modulus, shapes))
    parameters_mod(masked, modulus)
    return time.process_time() - began, 2 * clip / target * PARTIES


def mpyc(size: int) -> tuple[float, float]:
    """Shamir sharing of fixed-point numbers among three processes, the sum, and its opening."""
    from mpyc.runtime import mpc

    secfxp = mpc.SecFxp(64, 22)
    found: dict[str, float] = {}

    async def work() -> None:
        await mpc.start()
        mine = vectors(size)[mpc.pid]
        began = time.process_time()
        shared = mpc.input(secfxp.array(mine.astype(np.float64)))
        total = shared[0] + shared[1] + shared[2]
        opened = await mpc.output(total)
        found["cpu"] = time.process_time() - began
        found["error"] = float(
            np.abs(opened.astype(float) - sum(v.astype(float) for v in vectors(size))).max()
        )
        await mpc.shutdown()

    mpc.run(work())
    if mpc.pid:
        sys.exit()
    return found["cpu"], found["error"]


def spu(size: int) -> tuple[float, float]:
    """SEMI2K among three parties in threads of one process; a third of its CPU."""
    import spu.libspu
    import spu.utils.simulation as simulation

    simulator = simulation.Simulator.simple(
        PARTIES, spu.libspu.ProtocolKind.SEMI2K, spu.libspu.FieldType.FM64
    )
    summed = simulation.sim_jax(simulator, lambda x, y, z: x + y + z)
    values = vectors(size)
    summed(*[v[:8] for v in values])
    began = time.process_time()
    opened = np.asarray(summed(*values))
    cpu = (time.process_time() - began) / PARTIES
    return cpu, float(np.abs(opened - sum(v.astype(float) for v in values)).max())


if __name__ == "__main__":
    name, size = sys.argv[1], int(sys.argv[2])
    cpu, error = {"flower": flower, "mpyc": mpyc, "spu": spu}[name](size)
    print(json.dumps({"peer": name, "size": size, "cpu_s": cpu, "max_error": error}))
