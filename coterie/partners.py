"""A partner's side on this machine: make a domain, give it data, start it, invite, pin."""

import ipaddress
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy
import tomli_w

from coterie.addresses import certificate_of, renew_certificate, trust_hub, trust_own, url_of
from coterie.home import Home
from coterie.owner import ROLES, Owner, log_in_owner
from coterie.processes import hold, running, start, stop
from domains.dataset import COMING, load_dataset
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
from network.hub import Card, announce, key_of, new_card
from network.secrets import is_given
from network.tls import (
    pin_of,
)
from policies.approvals import create_owner_key, owner_key_hex


def create_domain(
    home: Home,
    name: str,
    host: str,
    port: int,
    passphrase: str | None = None,
    public_url: str | None = None,
    *,
    tls: bool = False,
    proxies: Sequence[str] = (),
    database_url: str | None = None,
) -> DomainSettings:
    """Make a domain and its owner: two keys, a generated password, all in 0600 files.

    Args:
        tls: make a TLS key and certificate too, and serve with them.
        proxies: addresses or networks of TLS proxies before the node.
        database_url: Postgres, for Syft and the ledger; SQLite files by default.

    Raises:
        FolderError, OwnerKeyError: the name is unusable or taken, or an option makes no sense.
    """
    require_name(name)
    _check_proxies(proxies)
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
    if database_url is not None and not is_given(created.path, "database.url"):
        write_private(created.path / "database.url", database_url)
    settings = settings.model_copy(
        update={
            "tls": tls,
            "proxies": tuple(proxies),
            "database": "sqlite" if database_url is None else "postgres",
        }
    )
    created.write_settings(settings)
    if tls:
        renew_certificate(home, name)
    if database_url is not None:
        _ = created.database_url
    login = {
        "url": url_of(settings),
        "email": settings.owner_email,
        "password": password,
        "node_key": created.node_key().public_key().public_bytes_raw().hex(),
        **({"certificate": pin_of(created.path)} if tls else {}),
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


def with_password(url: str | None, file: Path | None) -> str | None:
    """A database's URL with the password of a file, which is made (0600) if it's missing.

    Raises:
        FolderError: the URL isn't one.
    """
    if url is None or file is None:
        return url
    if not file.exists():
        write_private(file, secrets.token_urlsafe(32))
    try:
        found = sqlalchemy.make_url(url).set(password=file.read_text().strip())
    except sqlalchemy.exc.ArgumentError:
        raise FolderError("The database must be a URL: postgresql+psycopg2://...") from None
    return found.render_as_string(hide_password=False)


def _check_proxies(proxies: Sequence[str]) -> None:
    for each in proxies:
        try:
            ipaddress.ip_network(each)
        except ValueError:
            raise FolderError(
                f"'{each[:60]}' is no address or network of a proxy. Expected 10.0.0.5 or "
                "10.0.0.0/24."
            ) from None


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
    staged = folder.datasets / f".{dataset}{COMING}"
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


def start_domain(
    home: Home,
    name: str,
    hub: str | None,
    *,
    foreground: bool = False,
    hub_certificate: Path | None = None,
) -> str:
    """Start the node (in this process if `foreground`) and announce it; gives its address.

    Args:
        hub_certificate: file of the hub's certificate, if the system doesn't know its authority.

    Raises:
        FolderError, AlreadyRunning, ProcessError, HubError, TlsError.
    """
    folder = home.domain(name)
    settings = folder.settings()
    trust_own(folder)
    if hub is not None:
        trust_hub(folder, hub, hub_certificate)
    if foreground:
        from domains.node import serve

        def announce_itself() -> None:
            if hub is not None:
                _announce(folder, hub)

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
        f"{url_of(settings)}{API}/",
    )
    if hub is not None:
        _announce(folder, hub)
    return url_of(settings)


def _announce(folder: DomainFolder, hub: str) -> None:
    """Remember the hub's key, since no dealer may have it, and have the hub list the domain."""
    key, settings = key_of(hub), folder.settings()
    if key not in settings.hubs:
        folder.write_settings(settings.model_copy(update={"hubs": (*settings.hubs, key)}))
    announce(hub, card_of(folder))


def card_of(folder: DomainFolder) -> Card:
    """The domain's directory card, signed with its node key."""
    settings = folder.settings()
    url = settings.public_url or url_of(settings)
    return new_card(settings.name, url, settings.owner_key, folder.node_key())


def stop_domain(home: Home, name: str) -> bool:
    """Stop the node, and its dashboard if the demo left one; False if the node wasn't running."""
    folder = home.domain(name)
    folder.settings()
    stop(f"{name}'s dashboard", folder.path / "dashboard.pid")
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
        status |= owner.node.read("status")
        status["budgets"] = owner.node.read("budgets")
        status["loaded"] = owner.node.read("load_report")
    return status


def open_owner(
    home: Home, name: str, *, with_key: bool = True, passphrase: str | None = None
) -> Owner:
    """The owner's session, from her login file and, if asked, her key on this machine."""
    trust_own(home.domain(name))
    key = home.owner_key(name)
    return log_in_owner(home.owner_login(name), key if with_key else None, passphrase)


def invite(
    home: Home, name: str, email: str, role: str, out: Path, *, days: int = 90, again: bool = False
) -> str:
    """Make an account and add its login to the JSON file `out` (0600) under the domain's name.

    Args:
        days: after which the account stops working unless it is renewed.
        again: end the account of that email first, with its open plans: new password, new key.

    Returns:
        When it expires.
    """
    if role not in ROLES:
        raise FolderError(f"The role must be one of {', '.join(ROLES)}, got '{role[:20]}'.")
    folder = home.domain(name)
    settings = folder.settings()
    owner = open_owner(home, name, with_key=False)
    password = owner.invite(email, email.partition("@")[0], role, again=again)
    until = owner.renew(email, days)
    log_in(owner.node.url, email, password)
    accounts = json.loads(out.read_text()) if out.exists() else {}
    accounts[name] = {
        "url": settings.public_url or owner.node.url,
        "email": email,
        "password": password,
        "node_key": owner.node.node_key,
        **certificate_of(folder),
    }
    out.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(out, json.dumps(accounts, indent=2))
    return until


def unpin_peer(folder: DomainFolder, peer: str) -> None:
    """Trust a partner's keys no longer: a running node refuses every further round with it.

    Raises:
        FolderError: it isn't pinned.
    """
    settings = folder.settings()
    if peer not in settings.peers:
        raise FolderError(f"{settings.name} has not pinned '{peer[:40]}'.")
    peers = {name: keys for name, keys in settings.peers.items() if name != peer}
    folder.write_settings(settings.model_copy(update={"peers": peers}))


def pin_peer(folder: DomainFolder, peer: str, node_key: str, owner_key: str) -> None:
    """Pin a partner's keys in `domain.toml`; a running node reads it at once."""
    require_name(peer)
    settings = folder.settings()
    try:
        pinned = Peer(node_key=node_key, owner_key=owner_key)
    except ValueError:
        raise FolderError("Keys are 64 hex characters each: coterie domain card PEER") from None
    peers = {**settings.peers, peer: pinned}
    folder.write_settings(settings.model_copy(update={"peers": peers}))
