"""`make bench`: the engine beside its peers, in one run, as ratios.

    python -m benchmarks.engine [--items 3706 ...] [--repeat 5] [--json FILE] [--only batch ...]

Everything runs on one thread. Times are medians of at least `--repeat` runs, taken in turns; memory
is the peak above what was there before.
"""

import argparse
import ctypes
import gc
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import cases
from benchmarks.cases import Case, TooLarge
from benchmarks.models import MODELS
from domains.enclosure import keep_freed_memory
from domains.engine import private_sum
from policies.mechanism import noise_share_sigma
from policies.noise import SecureRandom, discrete_gaussian

WAYS: dict[str, cases.Way] = {
    "a plain": cases.plain,
    "b clipped": cases.clipped,
    "c quantised": cases.quantised,
    "d Opacus hooks": cases.hooks,
    "e Opacus ghost": cases.ghost,
    "f dense vmap(grad)": cases.dense,
}
SLOW = ("d Opacus hooks", "f dense vmap(grad)")
SLOW_ITEMS = 100_000
"""For a larger catalogue one pass of the slow ways takes minutes: they are left out."""
QUICK = 5
"""What takes milliseconds is timed so many times as often."""
BARS = {"b clipped": 1.5, "c quantised": 2.5}
ROUNDS = ((6_040, 3_706), (50_000, 91_599))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="*", default=[3_706, 91_599, 1_000_000])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="*", default=["noise", "batch", "round", "models"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    results: dict[str, Any] = {}
    if "noise" in options.only:
        results["noise"] = noise(options.repeat)
    if "batch" in options.only:
        results["batch"] = {str(items): batch(items, options.repeat) for items in options.items}
    if "round" in options.only:
        results["round"] = [whole_round(u, n, options.repeat) for u, n in ROUNDS]
    if "models" in options.only:
        results["models"] = models(options.repeat)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


def batch(items: int, repeat: int) -> dict[str, Any]:
    """512 users with 100 interactions, d = 64: every way's seconds, and its ratio to (a)."""
    print(f"\n512 users x 100 interactions, d = 64, {items:,} items")
    case, runs = Case(items), {}
    for name, way in WAYS.items():
        if name in SLOW and items > SLOW_ITEMS:
            print(f"  {name:20} skipped: one pass would take minutes")
            continue
        try:
            runs[name] = way(case)
        except TooLarge as reason:
            print(f"  {name:20} skipped: {reason}")
    slow = {name: runs.pop(name) for name in SLOW if name in runs}
    found = measured(runs, QUICK * repeat) | measured(slow, repeat)
    for name in WAYS:
        if name in found:
            shown = found[name]
            shown["ratio"] = shown["seconds"] / found["a plain"]["seconds"]
            bar = f"  (bar: {BARS[name]})" if name in BARS else ""
            print(f"  {name:20} {shown['seconds'] * 1e3:10.1f} ms {shown['ratio']:8.2f} x (a){bar}"
                  f"   peak {shown['peak_bytes'] / 2**20:8.0f} MiB")  # fmt: skip
    for name in ("d Opacus hooks", "e Opacus ghost"):
        if name in found:
            print(
                f"  ({name[0]}) / (b): {found[name]['seconds'] / found['b clipped']['seconds']:.1f}"
            )
    return found


def whole_round(users: int, items: int, repeat: int) -> dict[str, float]:
    """One node's round, clipped, quantised and noised, beside a plain pass over the same users."""
    case = Case(items, users)
    everyone = np.arange(users)
    sigma = noise_share_sigma(1.0, cases.CLIP_NORM, case.step.scale, 3, 1)

    def ours() -> None:
        total = private_sum(case.step, case.state, case.people, everyone)
        total += discrete_gaussian(sigma, total.size, SecureRandom())

    def plain() -> None:
        case.model.zero_grad()
        for begin in range(0, users, cases.BATCH):
            batch = case.people.batch(everyone[begin : begin + cases.BATCH], ("items",))
            case.model(batch["items"]).sum().backward()

    def noised() -> None:
        discrete_gaussian(sigma, case.step.width, SecureRandom())

    found = measured({"plain": plain, "ours": ours, "noise": noised}, repeat)
    theirs, mine, drawn = (found[name]["seconds"] for name in found)
    print(f"\nA round of {users:,} users, {items:,} items")
    print(f"  plain pass {theirs:.2f} s; clipped, quantised, noised {mine:.2f} s: "
          f"{mine / theirs:.2f} x (bar: 3); of it noise {drawn:.2f} s")  # fmt: skip
    return {"users": users, "items": items, "plain": theirs, "ours": mine, "ratio": mine / theirs}


def models(repeat: int) -> dict[str, float]:
    """SASRec-style and LoRA: the clipped, quantised sum beside a plain minibatch gradient."""
    print("\n512 users x 100 interactions, larger models")
    ratios = {}
    for name, case in MODELS:
        found = measured({"plain": case.plain, "ours": case.ours}, repeat)
        theirs, mine = found["plain"]["seconds"], found["ours"]["seconds"]
        ratios[name] = mine / theirs
        print(f"  {name:14} plain {theirs:6.2f} s; clipped, quantised {mine:6.2f} s: "
              f"{mine / theirs:.2f} x")  # fmt: skip
    return ratios


def noise(repeat: int) -> dict[str, float]:
    """Exact discrete Gaussian samples a second on one core, by standard deviation."""
    print("Exact discrete Gaussian noise, million samples a second and core (bar: 5)")
    found = {}
    for sigma in (10.0, 1e3, 2.0**22):
        draw = partial(discrete_gaussian, sigma, 10**6, SecureRandom())
        seconds = measured({"draw": draw}, QUICK * repeat)["draw"]["seconds"]
        found[str(sigma)] = 1 / seconds
        print(f"  sigma {sigma:12,.0f}  {1 / seconds:6.1f}")
    return found


def measured(runs: dict[str, Callable[[], object]], repeat: int) -> dict[str, dict[str, float]]:
    """Median seconds of CPU time and of the clock, and peak memory above the start, in bytes.

    Runs take turns, so that whatever else the machine does meets them all alike. Ratios are of CPU
    time: with one thread it is the clock's, less what other processes took.
    """
    peaks = {name: _peak_of(run) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    clock: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeat + 1):
        for name, run in runs.items():
            begin, began = time.process_time(), time.perf_counter()
            run()
            if turn:  # the first warms up
                seconds[name].append(time.process_time() - begin)
                clock[name].append(time.perf_counter() - began)
    return {
        name: {
            "seconds": statistics.median(seconds[name]),
            "clock": statistics.median(clock[name]),
            "peak_bytes": peaks[name],
        }
        for name in runs
    }


def _peak_of(run: Callable[[], object]) -> int:
    """Of the first time, with caches and sums that stay."""
    gc.collect()
    _reset_peak()
    before = _memory("VmRSS")
    run()
    return _memory("VmHWM") - before


def _memory(name: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    with open("/proc/self/status") as file:
        facts = dict(line.split(":", 1) for line in file)
    return int(facts[name].split()[0]) * 1024


def _reset_peak() -> None:
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


if __name__ == "__main__":
    main()
