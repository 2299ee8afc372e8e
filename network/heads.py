"""The heads of the domains' ledgers on their way between them, in the messages of an attempt.

Domains judge what they are shown of each other. Here only its form is looked at, so that none of
them refuses, and is blamed for it, what another one sends it.
"""

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from network.smpc.messages import MalformedMessage
from network.smpc.shamir import MAX_SHARES

MAX_NOTE_BYTES = 2**14
"""Of what a domain shows each of its peers, as it travels: JSON within JSON."""
_NOTES_BYTES = 3 * 2**19
"""Of what all domains show one of them."""
_MOST = 64
"""Sizes or signatures at a time; a node takes no more."""


@dataclass
class Heads:
    """What domains show each other of their ledgers.

    Attributes:
        domains: how many there are.
        held: by holder, then by domain: sizes of the heads it holds.
        notes: by domain, what it shows.
        cosignatures: by signer, what it co-signed.
    """

    domains: int = MAX_SHARES
    held: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    cosignatures: dict[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def extension_bytes(self) -> int:
        """Of what a domain shows to one of its peers besides."""
        return _NOTES_BYTES // self.domains - MAX_NOTE_BYTES

    def take_held(self, domain: str, held: Mapping[str, Any]) -> None:
        """Sizes of the heads that a domain holds, by peer.

        Raises:
            MalformedMessage: something else.
        """
        if len(held) > MAX_SHARES or not all(map(_are_sizes, held.values())):
            raise MalformedMessage("the answer has no sizes of ledger heads in 'held'")
        self.held[domain] = held

    def take_note(self, domain: str, note: Mapping[str, Any]) -> None:
        """What a domain shows its peers.

        Raises:
            MalformedMessage: something else, or longer than any.
        """
        extends = note.get("extends")
        if not isinstance(extends, dict):
            raise MalformedMessage("the answer's note of a ledger doesn't say what it extends")
        longest = max((_travelling(each) for each in extends.values()), default=0)
        if _travelling({**note, "extends": []}) > MAX_NOTE_BYTES or longest > self.extension_bytes:
            raise MalformedMessage(
                f"a ledger's note has at most {MAX_NOTE_BYTES} bytes, and {self.extension_bytes} "
                "for each peer"
            )
        self.notes[domain] = note

    def take_cosignatures(self, domain: str, signed: Sequence[Any]) -> None:
        """A domain's signatures under its peers' heads.

        Raises:
            MalformedMessage: something else, or longer than any.
        """
        if not all(map(_names_a_key, signed)):
            raise MalformedMessage("the answer has no signatures in 'cosignatures'")
        for key in {each["node_key"] for each in signed}:
            under = [each for each in signed if each["node_key"] == key]
            if len(under) > _MOST or _travelling(under) > MAX_NOTE_BYTES:
                raise MalformedMessage(f"{len(under)} signatures under one ledger's heads")
        self.cosignatures[domain] = signed

    def keep_notes_of(self, members: Container[str]) -> None:
        """Who isn't a member any longer shows nothing that could be refused."""
        self.notes = {name: note for name, note in self.notes.items() if name in members}

    def held_of(self, domain: str) -> dict[str, Any]:
        return {peer: held.get(domain, []) for peer, held in self.held.items() if peer != domain}

    def notes_for(self, domain: str) -> dict[str, Any]:
        return {
            peer: {**note, "extends": note["extends"].get(domain, [])}
            for peer, note in self.notes.items()
            if peer != domain
        }

    def cosignatures_for(
        self, domain: str, node_key: str, confirmed: Container[str]
    ) -> dict[str, Any]:
        """What those who confirmed co-signed of a domain's ledger."""
        return {
            peer: [each for each in signed if each.get("node_key") == node_key]
            for peer, signed in self.cosignatures.items()
            if peer != domain and peer in confirmed
        }


def _are_sizes(found: object) -> bool:
    return isinstance(found, list) and len(found) <= _MOST and all(type(n) is int for n in found)


def _names_a_key(signed: object) -> bool:
    return isinstance(signed, dict) and isinstance(signed.get("node_key"), str)


def _travelling(value: object) -> int:
    return len(json.dumps(json.dumps(value)))
