"""A private data set on its node: the declaration, the owner's policy, the compact arrays."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from domains.declaration import Declaration
from domains.folder import DomainFolder, FolderError
from domains.interactions import Interactions, LoadReport, load_interactions
from policies.owner_policy import OwnerPolicy


@dataclass(frozen=True)
class PrivateDataset:
    """What the node knows of one data set. `interactions` never leaves `domains/`.

    Attributes:
        declaration: the public facts, declared by the owner.
        policy: the owner's limits.
        store: folder of the compact arrays, which the engine's process maps.
        report: what loading dropped, for the owner only.
        users: how many users are really here; private, never answered or logged.
    """

    declaration: Declaration
    policy: OwnerPolicy
    store: Path
    report: LoadReport
    users: int

    @property
    def name(self) -> str:
        return self.declaration.name

    @property
    def public(self) -> bool:
        return self.policy.public


def load_datasets(folder: DomainFolder) -> dict[str, PrivateDataset]:
    """Load every data set declared in `datasets/*.toml` from `data/NAME/`.

    Raises:
        FolderError: no declaration, or two of the same name.
        DeclarationError, InteractionsError: as the loaders say.
    """
    found: dict[str, PrivateDataset] = {}
    for file in sorted(folder.datasets.glob("*.toml")):
        dataset = _load(folder, file)
        if dataset.name in found:
            raise FolderError(f"{file} declares '{dataset.name}', which another file declares too.")
        found[dataset.name] = dataset
    if not found:
        raise FolderError(
            f"{folder.datasets} declares no data set. See docs/owner.md for a first one."
        )
    return found


def _load(folder: DomainFolder, file: Path) -> PrivateDataset:
    declaration = Declaration.read(file)
    policy = OwnerPolicy.read(file)
    store = folder.store / declaration.name
    interactions: Interactions
    interactions, report = load_interactions(folder.data / declaration.name, declaration)
    interactions.save(store)
    return PrivateDataset(declaration, policy, store, report, interactions.users)


def read_table(file: Path) -> dict:
    """A TOML file as a dictionary; raises FolderError with the line where it breaks."""
    try:
        return tomllib.loads(file.read_text())
    except tomllib.TOMLDecodeError as error:
        raise FolderError(f"{file}: {error}") from None
