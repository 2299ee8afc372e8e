"""A domain's folder on its own machine: who it is, where it listens, where its files lie.

HOME/domains/NAME/           the node's: 0700
    domain.toml              name, address, pinned peers
    node.key                 Ed25519 seed of the node, hex, 0600
    tls.pem tls.key tls.csr  its certificate, key and signing request; clients.pem, if it asks for
                             its callers' certificates too
    datasets/NAME/           dataset.toml (declared), policy.toml (allowed), catalogue.txt and
                             data/: the owner's files, read by this node only
    syft/  ledger.db  store/ Syft's database and the key of the owner's account, the ledger, arrays
                             and revealed shares
Secrets may lie elsewhere (`network.secrets`): node.key, tls.key, database.url.
HOME/owners/NAME/            the owner's, on the owner's machine: signing key and login
"""

import os
import re
import secrets
import tomllib
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from network.secrets import SecretMissing, is_given, read_secret

NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
HexKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class FolderError(Exception):
    """The folder is missing, taken or damaged; the text says which and what to do."""


class Peer(BaseModel):
    """Another partner as this owner pinned it.

    Attributes:
        node_key: Ed25519 key that the partner's node signs with, 64 hex characters.
        owner_key: Ed25519 key that the partner's owner approves with, 64 hex characters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    node_key: HexKey
    owner_key: HexKey


class DomainSettings(BaseModel):
    """`domain.toml`: the node's name, Syft uid, address, owner and pinned peers.

    Attributes:
        server_uid: the domain's name in plans, for good.
        epoch: Syft's own id of the node since it was put back from a back-up. Calls name it, so
            that none signed before is taken again: the back-up doesn't know which were.
        public_url: where partners reach it, if that isn't `host` and `port` (a proxy's address).
        tls: whether the node itself serves TLS, with the folder's certificate.
        proxies: addresses or networks of TLS proxies before it, whose word on the caller's address
            and on encryption is taken.
        hubs: the node keys of the hubs that list this domain; none of them may deal to it.
        database: of Syft and the ledger. 'sqlite': files in the folder; 'postgres': at the URL in
            the secret `database.url`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    server_uid: str = Field(pattern=r"^[0-9a-f]{32}$")
    epoch: str | None = Field(None, pattern=r"^[0-9a-f]{32}$")
    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    public_url: str | None = Field(None, pattern=r"^https?://[A-Za-z0-9.:\[\]-]{1,200}$")
    tls: bool = False
    proxies: tuple[str, ...] = ()
    database: Literal["sqlite", "postgres"] = "sqlite"
    hubs: tuple[HexKey, ...] = ()
    owner_email: str
    owner_key: HexKey
    peers: dict[str, Peer] = {}

    @property
    def syft_uid(self) -> str:
        """The id that Syft's server and its callers know the node by."""
        return self.epoch or self.server_uid


@dataclass(frozen=True)
class DomainFolder:
    """The paths of one domain below `HOME/domains/NAME`."""

    path: Path

    @property
    def settings_file(self) -> Path:
        return self.path / "domain.toml"

    @property
    def datasets(self) -> Path:
        return self.path / "datasets"

    @property
    def store(self) -> Path:
        return self.path / "store"

    @property
    def first_password(self) -> Path:
        """The owner's generated password until the node's first start has stored its hash."""
        return self.path / "owner.first"

    @property
    def syft(self) -> Path:
        return self.path / "syft"

    @property
    def pid_file(self) -> Path:
        return self.path / "node.pid"

    @property
    def log_file(self) -> Path:
        return self.path / "node.log"

    @property
    def ledger_file(self) -> Path:
        return self.path / "ledger.db"

    @property
    def ledger_url(self) -> str:
        """Where the ledger is: a file here, or the database that Syft uses too."""
        if self.settings_file.exists() and self.settings().database == "postgres":
            return self.database_url
        return f"sqlite:///{self.ledger_file}"

    @property
    def database_url(self) -> str:
        """Raises FolderError if the secret isn't there or isn't a Postgres URL."""
        url = self._secret("database.url")
        if not url.startswith("postgresql+psycopg2://"):
            raise FolderError(
                "database.url must be postgresql+psycopg2://USER:PASSWORD@HOST:PORT/DB"
            )
        return url

    def settings(self) -> DomainSettings:
        """Read `domain.toml`.

        Raises:
            FolderError: no such domain, or a field is missing, unknown or malformed.
        """
        try:
            return _settings_in(self.settings_file.read_text())
        except FileNotFoundError:
            raise FolderError(
                f"There is no domain in {self.path}. Make one: coterie domain init {self.path.name}"
            ) from None
        except (ValidationError, ValueError, TypeError, RecursionError) as error:
            raise FolderError(f"{self.settings_file} can't be read: {_why(error)}") from None

    def peers(self) -> Mapping[str, Peer]:
        """The partners pinned at this moment, so that pinning and unpinning need no restart."""
        return self.settings().peers

    def hubs(self) -> Collection[str]:
        """The node keys of the hubs that listed this domain so far."""
        return self.settings().hubs

    def write_settings(self, settings: DomainSettings) -> None:
        """Replace `domain.toml` in one step, so that a reader sees the old or the new."""
        write_private(self.settings_file, tomli_w.dumps(settings.model_dump(exclude_none=True)))

    def node_key(self) -> Ed25519PrivateKey:
        """The node's own key, which Syft and the ledger sign with."""
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(self.node_key_hex()))

    def node_key_hex(self) -> str:
        return self._secret("node.key")

    def owner_account_key_hex(self) -> str:
        """The key of the owner's account, which Syft's server takes as its own.

        Syft hands it to whoever logs in with the owner's password, so it isn't the node's; only in
        folders that are older than this file it is.
        """
        kept = self.syft / "owner-account.key"
        return kept.read_text().strip() if kept.exists() else self.node_key_hex()

    def _secret(self, name: str) -> str:
        try:
            return read_secret(self.path, name)
        except SecretMissing as error:
            raise FolderError(str(error)) from None


@lru_cache(maxsize=16)
def _settings_in(text: str) -> DomainSettings:
    """Read anew only where the text changed: every call of a round asks for them twice."""
    return DomainSettings(**tomllib.loads(text))


def _why(error: Exception) -> str:
    """What is wrong with a file of settings, without its values: one may be a password."""
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in found[:8])
    return str(error) or type(error).__name__


def public_hex(key: Ed25519PrivateKey) -> str:
    """The verify key of an Ed25519 key, 64 hex characters."""
    return key.public_key().public_bytes_raw().hex()


def create_folder(
    path: Path, name: str, owner_key: str, password: str, host: str, port: int
) -> DomainFolder:
    """Make a new node folder with a fresh node key and Syft uid.

    Args:
        path: `HOME/domains/NAME`; must not exist yet.
        owner_key: the owner's verify key, 64 hex characters; its private half stays elsewhere.
        password: of the owner's Syft account; deleted here once Syft has its hash.

    Raises:
        FolderError: the name is unusable or the folder exists.
    """
    require_name(name)
    if path.exists():
        raise FolderError(f"{path} exists already. Start it: coterie domain up {name}")
    folder = DomainFolder(path)
    for directory in (path, folder.datasets, folder.store, folder.syft):
        directory.mkdir(mode=0o700, parents=True)
    if not is_given(path, "node.key"):
        write_private(path / "node.key", secrets.token_hex(32))
    write_private(folder.syft / "owner-account.key", secrets.token_hex(32))
    write_private(folder.first_password, password)
    folder.write_settings(
        DomainSettings(
            name=name,
            server_uid=uuid.uuid4().hex,
            epoch=None,
            host=host,
            port=port,
            owner_email=f"owner@{name}.example",
            owner_key=owner_key,
            public_url=None,
        )
    )
    return folder


def require_name(name: str) -> None:
    """Names are used in paths, keys and tables, so they are short and plain."""
    if not NAME.fullmatch(name):
        raise FolderError(
            f"'{name[:40]}' is not a name. Use 1 to 32 lower-case letters, digits and dashes, "
            "starting with a letter."
        )


def write_private(path: Path, text: str) -> None:
    """Write a 0600 file durably and in one step."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
