"""A private data set on its node: the declaration, the owner's policy, the compact arrays."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from domains.declaration import Declaration
from domains.enclosure import Enclosure
from domains.folder import DomainFolder, FolderError
from domains.interactions import LoadReport, load_interactions
from policies.owner_policy import OwnerPolicy, OwnerPolicyError

COMING = ".new"
"""How the folder of a data set ends that isn't whole yet; it begins with a dot."""


@dataclass(frozen=True)
class PrivateDataset:
    """What the node knows of one data set. `interactions` never leaves `domains/`.

    Attributes:
        declaration: the public facts, declared by the owner.
        policy: the owner's limits.
        store: folder of the compact arrays, which the engine's process maps.
        report: what loading dropped, for the owner only.
        users: how many users are really here; private, never answered or logged.
        policy_file: where the owner writes `policy`.
    """

    declaration: Declaration
    policy: OwnerPolicy
    store: Path
    report: LoadReport
    users: int
    policy_file: Path

    @property
    def name(self) -> str:
        return self.declaration.name

    def enclosure(self, plan_json: str, states: IO[bytes] | None = None) -> Enclosure:
        """A new engine process for a plan on this data set; `states` as there."""
        return Enclosure(self.store, plan_json, self.declaration.bounds, states)

    @property
    def public(self) -> bool:
        return self.policy.public


def load_datasets(folder: DomainFolder) -> dict[str, PrivateDataset]:
    """Load every data set declared in `datasets/*/dataset.toml` from the `data/` beside it.

    What an adding that was killed left behind (`.NAME.new`) is no data set, and removed.

    Raises:
        FolderError: no declaration, or two of the same name.
        DeclarationError, OwnerPolicyError, InteractionsError: as the loaders say.
    """
    found: dict[str, PrivateDataset] = {}
    for left in folder.datasets.glob(f".*{COMING}"):
        shutil.rmtree(left, ignore_errors=True)
    for file in sorted(folder.datasets.glob("[!.]*/dataset.toml")):
        dataset = load_dataset(folder, file.parent)
        if dataset.name in found:
            raise FolderError(f"{file} declares '{dataset.name}', which another file declares too.")
        found[dataset.name] = dataset
    if not found:
        raise FolderError(
            f"{folder.path.name} declares no data set. Add one: coterie domain data "
            f"{folder.path.name} --help"
        )
    return found


def load_dataset(folder: DomainFolder, place: Path) -> PrivateDataset:
    """Load one data set from its own folder into compact arrays in the node's store."""
    declaration = Declaration.read(place / "dataset.toml")
    rules = place / "policy.toml"
    policy = OwnerPolicy.read(rules)
    if folder.settings().owner_key in policy.second_approvers:
        raise OwnerPolicyError(
            f"{rules}: setting 'second_approvers': it names the owner's own key, so one person "
            "would sign for two. Name another person's"
        )
    interactions, report = load_interactions(place / "data", declaration)
    store = folder.store / declaration.name
    interactions.save(store)
    return PrivateDataset(declaration, policy, store, report, interactions.users, rules)
