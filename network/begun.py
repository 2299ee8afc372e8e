"""What was said in an attempt before any input was masked, as a run's folder keeps it.

With it an attempt that domains charged can be taken up again after the coordinator's process died.
"""

import json
import os
from pathlib import Path
from typing import Any

from network.heads import Heads

BEGUN = "begun.json"


def read_begun(kept: Path, heads: Heads) -> dict[str, Any] | None:
    """What was begun, if anything; the notes of the domains' ledgers go to `heads`."""
    file = kept / BEGUN
    if not file.exists():
        return None
    found: dict[str, Any] = json.loads(file.read_text())
    heads.notes.update(found.pop("notes"))
    return found


def write_begun(kept: Path, begun: dict[str, Any], heads: Heads) -> None:
    """Keep what was begun, durably, before anything masked is asked for."""
    kept.mkdir(parents=True, exist_ok=True)
    temporary = kept / (BEGUN + ".new")
    with temporary.open("w") as file:
        file.write(json.dumps({**begun, "notes": heads.notes}))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, kept / BEGUN)
