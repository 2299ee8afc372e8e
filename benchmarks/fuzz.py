"""Fuzz the byte boundary: inputs until a count is reached; time, peak memory, what went wrong.

    python -m benchmarks.fuzz --inputs 1000000 --processes 2

Every input goes to the reader of calls (members' and owners'), of answers, and of envelopes. A
crash ends the process and is reported; any exception but a refusal, an input that takes two seconds
of the processor or a minute by the clock, and memory above 1 GiB are reported and kept in the
corpus folder.
"""

import argparse
import multiprocessing
import resource
import signal
import sys
import time
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

LIMIT_BYTES = 2**30
BUSY_S, LATE_S = 2, 60


class Hang(Exception):
    """An input took too long."""


def _hang(*_: Any) -> None:
    raise Hang


def fuzz(seed: int, count: int, last: Path, found: Any) -> None:
    """Give `count` inputs; the one being tried is in `last`, should the process die."""
    from tests.network import fuzzing

    signal.signal(signal.SIGALRM, _hang)
    signal.signal(signal.SIGPROF, _hang)
    took, wrong = 0, 0
    began = time.monotonic()
    with last.open("w+b", buffering=0) as trying:
        for number, blob in enumerate(islice(fuzzing.inputs(seed), count)):
            trying.seek(0)
            trying.write(len(blob).to_bytes(4, "big") + blob)
            signal.setitimer(signal.ITIMER_PROF, BUSY_S)
            signal.alarm(LATE_S)
            try:
                took += "read" in fuzzing.give(blob).split(" | ")
            except BaseException as error:
                wrong += 1
                name = sha256(blob).hexdigest()[:12]
                (fuzzing.CORPUS / f"{name}.bin").write_bytes(blob)
                print(f"input {number} of seed {seed}: {error!r:.200} kept as {name}", flush=True)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.alarm(0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found.put((count, took, wrong, peak, time.monotonic() - began))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    share = chosen.inputs // chosen.processes
    workers = [
        context.Process(
            target=fuzz, args=(chosen.seed + i, share, Path(f"/tmp/coterie-fuzz-{i}"), found)
        )
        for i in range(chosen.processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    crashed = [worker.exitcode for worker in workers if worker.exitcode]
    results = [found.get() for worker in workers if worker.exitcode == 0]
    total, took, wrong = (sum(r[i] for r in results) for i in range(3))
    peak = max((r[3] for r in results), default=0)
    longest = max((r[4] for r in results), default=0.0)
    print(f"inputs {total}  taken by a reader {took}  wrong {wrong}  crashed {crashed}")
    print(f"{longest:.0f} s  peak memory of a process {peak / 2**20:.0f} MiB")
    if crashed or wrong or peak > LIMIT_BYTES:
        sys.exit(1)


if __name__ == "__main__":
    main()
