"""What a ledger gives an auditor to take away: a signed bundle, and proofs of single entries.

`policies.verify` reads both, offline and without this code.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from datetime import UTC, datetime
from typing import Any

from policies.canonical import sha256_hex
from policies.ledger.chain import Chain, Entry
from policies.ledger.heads import Heads


def bundle(chain: Chain, heads: Heads, entries: Sequence[Entry]) -> dict[str, Any]:
    """Every entry, its peers' co-signatures and the head over all, signed by the node."""
    head = heads.head(len(entries))
    said = {
        "format": "coterie-ledger-v1",
        "domain": chain.domain,
        "node_key": chain.node_key,
        "size": head.size,
        "root": head.root,
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "cosignatures": [row for row in heads.kept() if row["size"] <= head.size],
    }
    signature = chain.sign(_bundled(said))
    return {**said, "signature": signature, "entries": [astuple(entry) for entry in entries]}


def proof(chain: Chain, heads: Heads, index: int, size: int | None = None) -> dict[str, Any]:
    """That entry `index` is under the head of `size` entries (now, if none is given).

    Raises:
        LedgerError: there is no such entry or head.
    """
    head, entry = heads.prove(index, size)
    return {
        "format": "coterie-proof-v1",
        "node_key": chain.node_key,
        "head": head.model_dump(mode="json"),
        "entry": entry.model_dump(mode="json"),
    }


def _bundled(said: Mapping[str, Any]) -> str:
    # The root covers every entry, each peer's signature its own row; this covers the rest.
    beside = sha256_hex(json.dumps(said["cosignatures"], sort_keys=True).encode())
    return f"coterie-bundle-v1\n{said['size']}\n{said['root']}\n{said['exported']}\n{beside}"
