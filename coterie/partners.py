"""A partner's side on this machine: make a domain, give it data, start it, invite, pin."""

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import tomli_w

from coterie.home import Home
from coterie.owner import ROLES, Owner, log_in_owner
from coterie.processes import hold, running, start, stop
from domains.dataset import load_dataset
from domains.declaration import Declaration, read_catalogue
from domains.folder import (
    DomainFolder,
    DomainSettings,
    FolderError,
    Peer,
    create_folder,
    require_name,
    write_private,
)
from network.client import log_in
from network.gate import API
from network.hub import Card, announce, new_card
from policies.approvals import create_owner_key, owner_key_hex


def create_domain(
    home: Home,
    name: str,
    host: str,
    port: int,
    passphrase: str | None = None,
    public_url: str | None = None,
) -> DomainSettings:
    """Make a domain and its owner: two keys, a generated password, all in 0600 files.

    Raises:
        FolderError, OwnerKeyError: the name is unusable or taken.
    """
    require_name(name)
    folder = home.domain(name)
    if folder.path.exists():
        raise FolderError(f"{folder.path} exists already. Start it: coterie domain up {name}")
    home.owner_key(name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = create_owner_key(home.owner_key(name), passphrase)
    password = secrets.token_urlsafe(24)
    created = create_folder(folder.path, name, owner_key_hex(key), password, host, port)
    settings = created.settings()
    if public_url is not None:
        settings = _with_public_url(created, settings, public_url)
    login = {
        "url": url_of(settings),
        "email": settings.owner_email,
        "password": password,
        "node_key": created.node_key().public_key().public_bytes_raw().hex(),
    }
    write_private(home.owner_login(name), json.dumps(login, indent=2))
    return settings


def _with_public_url(folder: DomainFolder, settings: DomainSettings, url: str) -> DomainSettings:
    try:
        changed = DomainSettings(**{**settings.model_dump(), "public_url": url.rstrip("/")})
    except ValueError:
        raise FolderError(
            f"'{url[:80]}' is not an address. Expected http(s)://HOST[:PORT]."
        ) from None
    folder.write_settings(changed)
    return changed


def url_of(settings: DomainSettings) -> str:
    """Where this machine reaches the node."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    return f"http://{host}:{settings.port}"


def add_data(
    folder: DomainFolder,
    *,
    file: Path,
    catalogue: Path,
    dataset: str,
    population: str,
    users: int,
    interactions_per_user: int,
    holdout: Path | None,
    epsilon: float,
    public: bool,
) -> str:
    """Declare a data set and copy its files; nothing is kept if they can't be loaded.

    Returns:
        What loading dropped or shortened, for the owner.

    Raises:
        FolderError: the data set exists. DeclarationError, InteractionsError: bad input.
    """
    folder.settings()
    place = folder.datasets / dataset
    if place.exists():
        raise FolderError(
            f"{folder.path.name} has a data set '{dataset}' already. To append or correct rows, "
            f"see docs/owner.md; its files lie in {place / 'data'}."
        )
    staged = folder.datasets / f".{dataset}.new"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        (staged / "data").mkdir(mode=0o700, parents=True)
        shutil.copyfile(catalogue, staged / "catalogue.txt")
        _copy_private(file, staged / "data" / f"interactions{_suffix(file)}")
        if holdout is not None:
            _copy_private(holdout, staged / "data" / f"holdout{_suffix(holdout)}")
        declaration = Declaration(
            name=dataset,
            population=population,
            users=users,
            items=len(read_catalogue(catalogue)),
            interactions_per_user=interactions_per_user,
            catalogue=Path("catalogue.txt"),
        )
        write_private(staged / "dataset.toml", declaration.to_toml())
        policy: dict[str, Any] = {"epsilon": epsilon, "public": public}
        write_private(staged / "policy.toml", tomli_w.dumps(policy))
        loaded = load_dataset(folder, staged)
        os.replace(staged, place)
        return str(loaded.report)
    except OSError as error:
        raise FolderError(f"{error.filename or file} can't be read: {error.strerror}") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _suffix(path: Path) -> str:
    return "".join(path.suffixes[-2:]) if path.suffix == ".xz" else path.suffix


def _copy_private(source: Path, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with source.open("rb") as rows, os.fdopen(descriptor, "wb") as file:
        shutil.copyfileobj(rows, file)


def start_domain(home: Home, name: str, hub: str | None, *, foreground: bool = False) -> str:
    """Start the node (in this process if `foreground`) and announce it; gives its address.

    Raises:
        FolderError, AlreadyRunning, ProcessError, HubError.
    """
    folder = home.domain(name)
    settings = folder.settings()
    if foreground:
        from domains.node import serve

        def announce_itself() -> None:
            if hub is not None:
                announce(hub, card_of(folder))

        hold(name, folder.pid_file)
        serve(folder.path, announce_itself)
        return url_of(settings)
    start(
        name,
        ["-m", "domains.node", str(folder.path)],
        folder.pid_file,
        folder.log_file,
        settings.host,
        settings.port,
        f"{API}/",
    )
    if hub is not None:
        announce(hub, card_of(folder))
    return url_of(settings)


def card_of(folder: DomainFolder) -> Card:
    """The domain's directory card, signed with its node key."""
    settings = folder.settings()
    url = settings.public_url or url_of(settings)
    return new_card(settings.name, url, settings.owner_key, folder.node_key())


def stop_domain(home: Home, name: str) -> bool:
    """Stop the node; False if it wasn't running."""
    folder = home.domain(name)
    folder.settings()
    return stop(name, folder.pid_file)


def domain_status(home: Home, name: str) -> dict[str, Any]:
    """Whether the node is up and, if so, its data sets, budgets and ledger head."""
    folder = home.domain(name)
    settings = folder.settings()
    status: dict[str, Any] = {
        "name": name,
        "url": url_of(settings),
        "up": running(folder.pid_file) is not None,
    }
    if status["up"]:
        owner = open_owner(home, name, with_key=False)
        status["budgets"] = json.loads(owner.node.call("budgets"))
        status["loaded"] = json.loads(owner.node.call("load_report"))
    return status


def open_owner(
    home: Home, name: str, *, with_key: bool = True, passphrase: str | None = None
) -> Owner:
    """The owner's session, from her login file and, if asked, her key on this machine."""
    home.domain(name).settings()
    key = home.owner_key(name)
    return log_in_owner(home.owner_login(name), key if with_key else None, passphrase)


def invite(home: Home, name: str, email: str, role: str, out: Path) -> None:
    """Make an account and add its login to the JSON file `out` (0600) under the domain's name."""
    if role not in ROLES:
        raise FolderError(f"The role must be one of {', '.join(ROLES)}, got '{role[:20]}'.")
    owner = open_owner(home, name, with_key=False)
    password = owner.invite(email, email.partition("@")[0], role)
    log_in(owner.node.url, email, password)
    accounts = json.loads(out.read_text()) if out.exists() else {}
    accounts[name] = {
        "url": owner.node.url,
        "email": email,
        "password": password,
        "node_key": owner.node.node_key,
    }
    out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(out, json.dumps(accounts, indent=2))


def pin_peer(folder: DomainFolder, peer: str, node_key: str, owner_key: str) -> None:
    """Pin a partner's keys in `domain.toml`; a running node reads it at its next start."""
    require_name(peer)
    settings = folder.settings()
    try:
        pinned = Peer(node_key=node_key, owner_key=owner_key)
    except ValueError:
        raise FolderError("Keys are 64 hex characters each: coterie domain card PEER") from None
    peers = {**settings.peers, peer: pinned}
    folder.write_settings(settings.model_copy(update={"peers": peers}))
