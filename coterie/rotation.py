"""An owner's new key: made and signed for on her machine, recorded by her node, pinned by partners.

A letter says that the new key takes the old one's place, signed by both. Whoever has pinned the old
key can take the new one from it, without comparing keys again.
"""

import json
import os
from pathlib import Path

from coterie.home import Home
from coterie.processes import running
from domains.folder import DomainFolder, FolderError, Peer, write_private
from policies.approvals import create_owner_key, load_owner_key, owner_key_hex
from policies.ledger import Ledger
from policies.succession import sign_succession, successor

_FIELDS = ("replaces", "owner_key", "signature", "consent")


def replace_owner_key(
    home: Home, name: str, letter: Path, *, passphrase: str | None, new: str | None, reason: str
) -> str:
    """Make the owner another key and write the letter; gives the new key, hex.

    The node's folder follows if it is on this machine. The old key's file is kept beside. What was
    cut off halfway is finished by calling this again.

    Args:
        passphrase: of the key's file until now.
        new: of the file from now on.

    Raises:
        OwnerKeyError: the key's file can't be read with the passphrase.
        FolderError: the node runs, or its folder names another owner's key.
    """
    file = home.owner_key(name)
    old, coming = load_owner_key(file, passphrase), file.with_suffix(".next")
    key = load_owner_key(coming, new) if coming.exists() else create_owner_key(coming, new)
    signature, consent = sign_succession(old, key, name, by=f"owner of {name}", reason=reason)
    said = (owner_key_hex(old), owner_key_hex(key), signature, consent)
    write_private(letter, json.dumps(dict(zip(_FIELDS, said, strict=True)), indent=1))
    if home.domain(name).settings_file.exists():
        follow(home.domain(name), letter)
    kept = file.with_name(f"owner-{owner_key_hex(old)[:16]}.pem")
    if not kept.exists():
        os.link(file, kept)
    os.replace(coming, file)
    return owner_key_hex(key)


def follow(folder: DomainFolder, letter: Path) -> str:
    """Let a node take its owner's new key; its ledger records it. Gives that key, hex.

    Raises:
        FolderError: the node runs, or the letter doesn't begin with the key in `domain.toml`.
    """
    settings = folder.settings()
    if running(folder.pid_file) is not None:
        raise FolderError(
            f"{settings.name} is running. Stop it first: coterie domain stop {settings.name}"
        )
    replaces, new, signature, consent = _read(letter, settings.name)
    if settings.owner_key not in (replaces, new):
        raise FolderError(
            f"{letter} replaces {replaces[:16]}, but the owner's key here is "
            f"{settings.owner_key[:16]}."
        )
    ledger = Ledger(folder.ledger_url, settings.name, folder.node_key())
    ledger.succeed_owner(replaces, new, signature, consent)
    folder.write_settings(settings.model_copy(update={"owner_key": new}))
    return new


def pin_successor(folder: DomainFolder, peer: str, letter: Path) -> str:
    """Pin a partner's owner's new key by the letter that her old one signed; gives it, hex.

    Raises:
        FolderError: the partner isn't pinned, or the letter isn't by its pinned owner.
    """
    settings = folder.settings()
    pinned = settings.peers.get(peer)
    if pinned is None:
        raise FolderError(
            f"{settings.name} has not pinned '{peer[:40]}'; a letter can't be checked."
        )
    replaces, new, _, _ = _read(letter, peer)
    if replaces != pinned.owner_key:
        raise FolderError(
            f"{letter} replaces {replaces[:16]}, but the key pinned for {peer} is "
            f"{pinned.owner_key[:16]}. Compare keys with that partner, and pin them by hand."
        )
    peers = {**settings.peers, peer: Peer(node_key=pinned.node_key, owner_key=new)}
    folder.write_settings(settings.model_copy(update={"peers": peers}))
    return new


def _read(letter: Path, domain: str) -> tuple[str, str, str, str]:
    """The keys and their signatures: old key, new key, signature, consent."""
    try:
        said = json.loads(letter.read_text())
        fields = tuple(str(said[name]) for name in _FIELDS)
        shown = successor(fields[0], domain, *fields[2:])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise FolderError(f"{letter} is no letter of `coterie domain rotate`.") from None
    if shown != fields[1]:
        raise FolderError(f"{letter} isn't signed by both keys of {domain}'s owner, for {domain}.")
    replaces, new, signature, consent = fields
    return replaces, new, signature, consent
