"""A data scientist's own script: a Python file with `plan(data, epsilon[, seed])`.

It is the scientist's code on the scientist's machine; no node ever sees it run.
"""

import importlib.util
import inspect
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from network.federation import Federation, FederationError
from network.program import DataSet, Plan


@dataclass(frozen=True)
class Script:
    """Which file makes the plan, for which data set, at which epsilon.

    Attributes:
        epsilon: of the whole plan; None is without noise, NOT PRIVATE.
        seed: of the first state, given to scripts whose `plan` takes one.
    """

    path: str
    dataset: str
    epsilon: float | None
    seed: int = 0

    def plan(self, federation: Federation) -> Plan:
        """The plan that the script writes for the partners' declared data."""
        return self.write(federation.data(self.dataset))

    def write(self, data: DataSet) -> Plan:
        """The plan that the script writes for a data set.

        Raises:
            FederationError: no such file, or it has no function `plan`.
        """
        file = Path(self.path)
        specification = importlib.util.spec_from_file_location(file.stem, file)
        if not file.is_file() or specification is None or specification.loader is None:
            raise FederationError(f"There is no script {file}.")
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        if not hasattr(module, "plan"):
            raise FederationError(f"{file} must define plan(data, epsilon) -> coterie.Plan.")
        seeded = "seed" in inspect.signature(module.plan).parameters
        more = {"seed": self.seed} if seeded else {}
        written: Plan = module.plan(data, self.epsilon, **more)
        return written

    def save(self, folder: Path) -> None:
        """Note beside the run how its plan was made, for `coterie run resume`."""
        folder.mkdir(parents=True, exist_ok=True)
        found = replace(self, path=str(Path(self.path).resolve()))
        (folder / "script.json").write_text(json.dumps(asdict(found), indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Script":
        try:
            return cls(**json.loads((folder / "script.json").read_text()))
        except FileNotFoundError:
            raise FederationError(f"{folder} is not a run's folder: no script.json.") from None
