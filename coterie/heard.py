"""What partners say of a ledger that is put back: which of its heads they co-signed.

Their nodes are asked under the node key of the domain that comes back, and sign their answers; or
their owners give the file of `coterie ledger heads`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from domains.folder import DomainFolder, FolderError, Peer
from domains.witness import ask_for_heads
from network.answers import AnswerRefused, ask
from network.hub import Card, directory
from network.tls import CERTIFICATE, KEY, TlsError, trust


class RestoreRefused(FolderError):
    """A back-up can't be made or put back; the text says why and what to do."""


@dataclass(frozen=True)
class Partners:
    """Where the partners' nodes are, and what their machines are trusted by.

    Attributes:
        hub: lists their addresses; None: none is asked.
        hub_certificate: file of the hub's certificate, if no public authority signed it.
        certificates: files of the certificates of nodes that no public authority signed; each is
            taken at every partner's address, since what is asked and answered there is signed.
    """

    hub: str | None = None
    hub_certificate: Path | None = None
    certificates: Sequence[Path] = ()


NOBODY = Partners()


def gathered(
    staged: DomainFolder, heads: Sequence[Path], partners: Partners, place: Path
) -> set[str]:
    """Collect what partners hold of this ledger, by their pinned keys; gives who was heard."""
    peers = staged.settings().peers
    keys = {peer.node_key: name for name, peer in peers.items()}
    folder = place / "heads"
    folder.mkdir()
    said = set()
    for file in heads:
        try:
            found = json.loads(file.read_text())
            witness = found["witness_key"]
        except (OSError, ValueError, KeyError, TypeError):
            raise RestoreRefused(f"{file} is not what `coterie ledger heads` writes.") from None
        if witness not in keys:
            raise RestoreRefused(
                f"{file} is by a node that {staged.settings().name} hasn't pinned."
            )
        said.add(keys[witness])
        (folder / f"{keys[witness]}.json").write_text(json.dumps(found))
    known = _text_of(partners.certificates)
    for name, card in _listed(staged, partners).items():
        if name in peers and name not in said and card.node_key == peers[name].node_key:
            _trust(staged, card.url, known)
            answer = _asked(staged, card.url, peers[name])
            if answer is not None:
                said.add(name)
                (folder / f"{name}.json").write_bytes(answer)
    return said


def _listed(staged: DomainFolder, partners: Partners) -> dict[str, Card]:
    if partners.hub is None:
        return {}
    mine = [partners.hub_certificate] if partners.hub_certificate else []
    _trust(staged, partners.hub, _text_of(mine))
    return directory(partners.hub)


def _text_of(certificates: Sequence[Path]) -> str | None:
    try:
        return "\n".join(each.read_text() for each in certificates) or None
    except (OSError, ValueError) as error:
        raise TlsError(f"A certificate can't be read ({type(error).__name__}).") from None


def _trust(staged: DomainFolder, url: str, certificates: str | None) -> None:
    """Take these at an address, and show the domain's own, which came with the back-up."""
    own = (staged.path / CERTIFICATE, staged.path / KEY)
    has_own = all(each.exists() for each in own)
    if certificates is not None or has_own:
        trust(url, certificates, *(own if has_own else ()))


def _asked(staged: DomainFolder, url: str, peer: Peer) -> bytes | None:
    """A partner's node, asked under our node key; None if it doesn't answer as itself."""
    body = ask_for_heads(staged.node_key(), peer.node_key)
    try:
        with requests.Session() as session:
            answer = ask(session, "POST", f"{url}/heads", body, json_body=True, timeout=(5, 30))
    except (requests.RequestException, AnswerRefused):
        return None
    return answer.content if answer.status == 200 and answer.is_from(peer.node_key) else None
