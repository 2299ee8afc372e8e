"""`coterie ledger`: read a domain's ledger and verify it offline."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from coterie.commands.output import (
    HomeOption,
    JsonOption,
    console,
    fail,
    home_of,
    print_json,
    print_table,
    told,
)
from coterie.exit_codes import ExitCode
from coterie.partners import open_owner
from policies.verify import verify as verify_ledger

app = typer.Typer(no_args_is_help=True, help="A domain's ledger: show it, verify it.")


@app.command()
@told
def show(
    domain: Annotated[str, typer.Option("--domain", help="The domain.")],
    after: Annotated[int, typer.Option(help="Show entries after this index.")] = 0,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 100,
    json_: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Signed entries of a running domain's ledger.

    Example: coterie ledger show --domain north --limit 20
    """
    owner = open_owner(home_of(home), domain, with_key=False)
    entries = json.loads(owner.node.call("ledger", after=after, limit=limit))
    if json_:
        print_json(entries)
        return
    print_table(
        f"Ledger of {domain}",
        ["#", "kind", "body", "hash"],
        [[e["index"], e["kind"], e["body"][:100], e["hash"][:12]] for e in entries],
    )


@app.command()
@told
def verify(
    path: Annotated[Path | None, typer.Argument(help="A ledger's SQLite file.")] = None,
    domain: Annotated[str | None, typer.Option("--domain", help="A domain made here.")] = None,
    key: Annotated[str | None, typer.Option(help="The node's verify key, 64 hex.")] = None,
    json_: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Replay chain, signatures, approvals and charges, and recompute epsilon, offline.

    Example: coterie ledger verify --domain north
    """
    if domain is not None:
        folder = home_of(home).domain(domain)
        folder.settings()
        path, key = folder.ledger_file, folder.node_key().public_key().public_bytes_raw().hex()
    if path is None:
        raise typer.BadParameter("Give a ledger's file, or --domain.")
    verdict = verify_ledger(path, key)
    if json_:
        print_json(asdict(verdict))
    else:
        console.print(verdict.text, markup=False, highlight=False)
    if not verdict.ok:
        raise fail("The ledger does not verify.", ExitCode.NOT_VERIFIED)
