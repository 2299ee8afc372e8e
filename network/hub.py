"""The hub: a Syft gateway with the network's directory. It never sees a contribution.

Domains announce themselves with cards signed by their node keys; scientists and dashboards read
where the domains are. The hub is not trusted: keys are pinned by owners, and rounds run between
the coordinator and the nodes, so the hub may be down while plans are trained.

Run it in its own process: python -m network.hub HOME/hub
"""

import contextlib
import gc
import json
import logging
import os
import secrets
import sys
import time
import tomllib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests
import tomli_w
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from network.answers import Answer, AnswerRefused, ask, node_key_in
from network.client import API
from network.logs import log_as_json
from network.reaching import why_unreached
from network.secrets import is_given, read_secret
from network.tls import create_certificate
from policies.canonical import canonical

MAX_CARD_BYTES = 4096
MAX_DIRECTORY_BYTES = 2**20
_CARD_DOMAIN = b"coterie-directory-card-v1\x00"


class HubError(Exception):
    """The hub's folder is missing or damaged, or the hub doesn't answer."""


class HubSettings(BaseModel):
    """`hub.toml`: address, Syft uid, and the node keys of the domains it lists."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server_uid: str = Field(pattern=r"^[0-9a-f]{32}$")
    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    tls: bool = False
    proxies: tuple[str, ...] = ()
    members: dict[str, str] = {}


class Card(BaseModel):
    """One line of the directory: a domain's name, address and keys, at a time, signed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    url: str = Field(pattern=r"^https?://[A-Za-z0-9.:\[\]-]{1,200}$")
    node_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    owner_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    time: int
    signature: str = Field(pattern=r"^([0-9a-f]{128})?$")

    def signed(self, key: Ed25519PrivateKey) -> "Card":
        return self.model_copy(update={"signature": key.sign(self._message()).hex()})

    def is_valid(self) -> bool:
        """Whether the card is signed by the node key it names."""
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.node_key))
            key.verify(bytes.fromhex(self.signature), self._message())
        except (InvalidSignature, ValueError):
            return False
        return True

    def _message(self) -> bytes:
        return _CARD_DOMAIN + canonical(self.model_dump(exclude={"signature"}))


def create_hub(
    path: Path, host: str, port: int, *, tls: bool = False, proxies: Sequence[str] = ()
) -> HubSettings:
    """Make the hub's folder (0700) with a fresh key; keeps an existing one."""
    file = path / "hub.toml"
    if file.exists():
        return read_settings(path)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("node.key", "root.password"):
        if is_given(path, name):
            continue
        descriptor = os.open(path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as secret:
            secret.write(secrets.token_hex(32))
    if tls:
        create_certificate(path, "coterie hub", [host, "localhost", "127.0.0.1"])
    settings = HubSettings(
        server_uid=uuid.uuid4().hex, host=host, port=port, tls=tls, proxies=tuple(proxies)
    )
    write_settings(path, settings)
    return settings


def read_settings(path: Path) -> HubSettings:
    try:
        return HubSettings(**tomllib.loads((path / "hub.toml").read_text()))
    except FileNotFoundError:
        raise HubError(f"There is no hub in {path}. Start one: coterie hub up") from None
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        raise HubError(f"{path / 'hub.toml'} can't be read: {error}") from None


def write_settings(path: Path, settings: HubSettings) -> None:
    """Replace `hub.toml` (0600) in one step, so that a running hub reads the old or the new."""
    coming = path / "hub.toml.new"
    descriptor = os.open(coming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(tomli_w.dumps(settings.model_dump()))
        file.flush()
        os.fsync(file.fileno())
    os.replace(coming, path / "hub.toml")


def admit_member(path: Path, name: str, node_key: str) -> None:
    """List a domain from now on; a running hub reads this at the next announcement."""
    settings = read_settings(path)
    write_settings(
        path, settings.model_copy(update={"members": {**settings.members, name: node_key}})
    )


def announce(hub_url: str, card: Card) -> None:
    """Tell the hub where a domain is; raises HubError if it doesn't take the card."""
    try:
        answer = _ask(hub_url, "POST", json.dumps(card.model_dump()).encode())
    except (AnswerRefused, requests.RequestException) as error:
        raise HubError(f"The hub at {hub_url} does not answer ({why_unreached(error)}).") from None
    if answer.status != 200:
        raise HubError(f"The hub at {hub_url} refused the card: {answer.excerpt}")


def key_of(hub_url: str) -> str:
    """The hub's node key, hex; raises HubError if it doesn't answer under the key it names."""
    try:
        with requests.Session() as session:
            answer = ask(session, "GET", f"{hub_url.rstrip('/')}{API}/metadata", timeout=(5, 5))
    except (AnswerRefused, requests.RequestException) as error:
        raise HubError(f"The hub at {hub_url} does not answer ({type(error).__name__}).") from None
    key = node_key_in(answer.content)
    if not answer.is_from(key):
        raise HubError(f"The hub at {hub_url} doesn't sign its answers with a key that it names.")
    return key


def directory(hub_url: str) -> dict[str, Card]:
    """The listed domains whose cards are validly signed, by name."""
    try:
        answer = _ask(hub_url, "GET")
        cards = [Card(**card) for card in json.loads(answer.content)]
    except (
        AnswerRefused, requests.RequestException, ValueError, TypeError, RecursionError
    ) as error:  # fmt: skip
        raise HubError(f"The hub at {hub_url} does not answer ({why_unreached(error)}).") from None
    return {card.name: card for card in cards if card.is_valid()}


def _ask(hub_url: str, method: str, body: bytes = b"") -> Answer:
    with requests.Session() as session:
        return ask(
            session,
            method,
            f"{hub_url.rstrip('/')}/directory",
            body,
            json_body=True,
            timeout=(5, 20),
            most=MAX_DIRECTORY_BYTES,
        )


def build_app(path: Path) -> FastAPI:
    """The hub's HTTP app: Syft's gateway behind the gate, and the directory beside it."""
    from network.gate import open_app

    gateway = _gateway(path, read_settings(path))
    app = open_app(gateway, lambda role: frozenset({"metadata"}), path, gateway.signing_key)
    cards: dict[str, Card] = {}

    @app.get("/directory")
    def listed() -> list[Mapping[str, Any]]:
        return [card.model_dump() for _, card in sorted(cards.items())]

    @app.post("/directory")
    async def announced(request: Request) -> dict[str, str]:
        async with app.state.body_of(request, MAX_CARD_BYTES) as body:
            card = _read_card(body)
        if read_settings(path).members.get(card.name) != card.node_key or not card.is_valid():
            raise HTTPException(403, "Not a member's card. Members are admitted in hub.toml.")
        if card.name in cards and card.time < cards[card.name].time:
            raise HTTPException(409, "An older card than the one listed.")
        cards[card.name] = card
        return {"status": "listed"}

    return app


def _read_card(body: bytes) -> Card:
    try:
        return Card(**json.loads(body))
    except (ValueError, TypeError, ValidationError, RecursionError):
        raise HTTPException(422, "Not a directory card.") from None


def _gateway(path: Path, settings: HubSettings) -> Any:
    os.environ["SYFT_TEMP_ROOT"] = str((path / "syft").resolve())
    from syft.server.credentials import SyftSigningKey
    from syft.server.gateway import Gateway
    from syft.store.db.sqlite import SQLiteDBConfig
    from syft.types.uid import UID

    from network.gate import read_store_strictly

    read_store_strictly()
    (path / "syft").mkdir(mode=0o700, exist_ok=True)
    gateway = Gateway(
        name="hub",
        id=UID.from_string(settings.server_uid),
        signing_key=SyftSigningKey.from_string(read_secret(path, "node.key")),
        db_config=SQLiteDBConfig(filename="syft.db", path=path / "syft"),
        root_email="operator@hub.example",
        root_username="hub operator",
        root_password=read_secret(path, "root.password"),
        server_type="gateway",
        server_side_type="low",
        in_memory_workers=False,
    )
    logging.disable(logging.CRITICAL)
    return gateway


def new_card(name: str, url: str, owner_key: str, key: Ed25519PrivateKey) -> Card:
    """A card for this domain, signed now."""
    return Card(
        name=name,
        url=url,
        node_key=key.public_key().public_bytes_raw().hex(),
        owner_key=owner_key,
        time=int(time.time()),
        signature="",
    ).signed(key)


def serve(path: Path) -> None:
    """Serve the hub in `path` until it is told to stop."""
    from network.connections import serve_app

    settings = read_settings(path)
    log_as_json()
    gc.disable()  # while Syft loads, collecting finds nothing and takes a fifth of the start
    # Syft prints callers' errors as they come.
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        app = build_app(path)
        gc.freeze()
        gc.enable()
        tls = path if settings.tls else None
        serve_app(app, settings.host, settings.port, tls, settings.proxies)


def main() -> None:
    try:
        serve(Path(sys.argv[1]))
    except Exception as error:
        sys.exit(f"The hub did not start: {error}")


if __name__ == "__main__":
    main()
