"""The heads of the domains' ledgers on their way between them, in the messages of an attempt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Heads:
    """What domains show each other of their ledgers; carried, not judged.

    Attributes:
        held: by holder, then by domain: sizes of the heads it holds.
        notes: by domain, what it shows.
        cosignatures: by signer, what it co-signed.
    """

    held: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    cosignatures: dict[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def held_of(self, domain: str) -> dict[str, Any]:
        return {peer: held.get(domain, []) for peer, held in self.held.items() if peer != domain}

    def notes_for(self, domain: str) -> dict[str, Any]:
        return {
            peer: {**note, "extends": note["extends"].get(domain, [])}
            for peer, note in self.notes.items()
            if peer != domain
        }

    def cosignatures_for(self, domain: str, node_key: str) -> dict[str, Any]:
        return {
            peer: [each for each in signed if each.get("node_key") == node_key]
            for peer, signed in self.cosignatures.items()
            if peer != domain
        }
