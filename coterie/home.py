"""Where this machine keeps domains, owners' keys, the hub and the scientist's runs."""

import os
from dataclasses import dataclass
from pathlib import Path

from domains.folder import DomainFolder


@dataclass(frozen=True)
class Home:
    """A folder with `domains/`, `owners/`, `hub/` and `scientist/` below it."""

    path: Path

    @classmethod
    def default(cls) -> "Home":
        """`$COTERIE_HOME`, or `.coterie` in the user's home directory."""
        return cls(Path(os.environ.get("COTERIE_HOME", Path.home() / ".coterie")))

    @classmethod
    def of_run(cls, folder: Path) -> Path | None:
        """The home whose `scientist/runs` holds this run's folder, if one does."""
        home = cls(folder.resolve().parents[2])
        return home.path if folder.resolve().parent == home.runs else None

    def domain(self, name: str) -> DomainFolder:
        return DomainFolder(self.path / "domains" / name)

    def domains(self) -> list[str]:
        """Names of the domains made here, sorted."""
        root = self.path / "domains"
        return sorted(p.name for p in root.iterdir()) if root.is_dir() else []

    def owner_key(self, name: str) -> Path:
        return self.path / "owners" / name / "owner.pem"

    def certificate(self, name: str) -> Path:
        """The TLS certificate of a domain made here: public, for those who call its node."""
        return self.certificates / f"{name}.pem"

    @property
    def certificates(self) -> Path:
        return self.path / "certificates"

    def owner_login(self, name: str) -> Path:
        return self.path / "owners" / name / "login.json"

    @property
    def hub(self) -> Path:
        return self.path / "hub"

    @property
    def accounts(self) -> Path:
        """The scientist's accounts, one per domain."""
        return self.path / "scientist" / "accounts.json"

    @property
    def scientist_key(self) -> Path:
        return self.path / "scientist" / "scientist.pem"

    @property
    def runs(self) -> Path:
        return self.path / "scientist" / "runs"
