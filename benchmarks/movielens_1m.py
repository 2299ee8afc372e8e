"""How good is the recommender that partners train together, at which epsilon?

Runs `coterie demo` on a data set for several seeds and epsilons and prints the mean of each row,
with every seed beside it. The seed decides split, sampled negatives and first state alike, for the
federated and for the central model. About 12 minutes a seed on two cores.

    .venv/bin/python benchmarks/movielens_1m.py ../shared/data/ml-1m
"""

import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import mean

EPSILONS = (1, 5, 10)
SEEDS = (0, 1, 2)


def measure(data: Path, seed: int, folder: Path) -> dict:
    """The demo's figures for one seed."""
    figures = folder / f"seed-{seed}.json"
    epsilons = [word for epsilon in EPSILONS for word in ("--epsilon", str(epsilon))]
    command = [
        sys.executable, "-m", "coterie.cli", "demo", "--data", str(data), "--seed", str(seed),
        *epsilons, "--json", str(figures), "--home", str(folder / "home"),
        "--results", str(folder / f"seed-{seed}"),
    ]  # fmt: skip
    with (folder / f"seed-{seed}.log").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)
    return json.loads(figures.read_text())


def main(data: Path, folder: Path) -> None:
    """Measure every seed and print the table."""
    found: dict[str, list[float]] = defaultdict(list)
    for seed in SEEDS:
        figures = measure(data, seed, folder)
        for row in figures["rows"]:
            model = re.sub(r" \(computed.*", "", row["model"])
            found[model].append(row["hr"])
            print(f"seed {seed}  {model:36} HR@10 {row['hr']:.4f}", flush=True)
    print(f"\n{'model':36} mean HR@10  by seed")
    for model, values in found.items():
        print(f"{model:36} {mean(values):.4f}      {' '.join(f'{v:.4f}' for v in values)}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: movielens_1m.py DATA [FOLDER]")
    place = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp())
    place.mkdir(parents=True, exist_ok=True)
    main(Path(sys.argv[1]), place)
