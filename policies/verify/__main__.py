"""The verifier from the command line: `python -m policies.verify LEDGER`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from policies.verify import verify


def _main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="policies.verify", description="Verify a ledger offline.")
    parser.add_argument("ledger", help="SQLite file, exported bundle, or database URL")
    parser.add_argument("--key", help="the node's public key from the roster, 64 hex digits")
    parser.add_argument("--owner-key", help="the owner's public key from the roster")
    parser.add_argument("--heads", type=Path, help="a peer's exported heads, or a folder of them")
    parser.add_argument("--peer", action="append", help="a peer's node key from the roster")
    chosen = parser.parse_args(arguments)
    try:
        verdict = verify(chosen.ledger, chosen.key, chosen.owner_key, chosen.heads, chosen.peer)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    print(verdict.text)
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    raise SystemExit(_main())
