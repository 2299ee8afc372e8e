"""`coterie ledger`: show a domain's ledger, verify it offline, take it or parts of it away."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.auditor import Auditor, Overview
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
from coterie.report import report
from domains.folder import FolderError, public_hex
from network.client import log_in
from policies.alerts import alerts, unsigned_heads
from policies.ledger import Entry, Ledger
from policies.ledger.database import is_ledger
from policies.verify import Verdict, verify_proof
from policies.verify import verify as verify_ledger

app = typer.Typer()
DomainOption = Annotated[str, typer.Option("--domain", help="A domain made here.")]


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
    entries = owner.node.read("ledger", after=after, limit=limit)
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
    ledger: Annotated[
        str | None,
        typer.Argument(
            help="Ledger file, exported bundle, proof, database URL, or a node's address."
        ),
    ] = None,
    domain: Annotated[str | None, typer.Option("--domain", help="A domain made here.")] = None,
    key: Annotated[str | None, typer.Option(help="The node's verify key, 64 hex.")] = None,
    owner_key: Annotated[str | None, typer.Option(help="The owner's public key, 64 hex.")] = None,
    heads: Annotated[
        Path | None, typer.Option(help="What peers exported (`ledger heads`): file or folder.")
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            help="A peer's node key from the roster; repeat it. Nobody else's heads count."
        ),
    ] = None,
    account: Annotated[
        Path | None, typer.Option(help="With a node's address: JSON file of your account there.")
    ] = None,
    json_: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Replay chain, signatures, approvals and charges, and recompute epsilon, offline.

    Without the peers' heads a ledger is at best 'consistent, not proven complete'.

    Example: coterie ledger verify north-ledger.json --heads peers/
    """
    try:
        verdict = _verdict(ledger, domain, key, owner_key, heads, peer, account, home)
    except FileNotFoundError as error:
        raise fail(str(error), ExitCode.USAGE) from None
    if json_:
        print_json(asdict(verdict))
    else:
        console.print(verdict.text, markup=False, highlight=False)
    if not verdict.ok:
        raise fail("The ledger does not verify.", ExitCode.NOT_VERIFIED)


def _verdict(
    ledger: str | None,
    domain: str | None,
    key: str | None,
    owner_key: str | None,
    heads: Path | None,
    peers: list[str] | None,
    account: Path | None,
    home: Path | None,
) -> Verdict:
    if domain is not None:
        folder = home_of(home).domain(domain)
        folder.settings()
        file = folder.ledger_url.removeprefix("sqlite:///")
        return verify_ledger(file, public_hex(folder.node_key()), owner_key, heads, peers)
    if ledger is None:
        raise typer.BadParameter("Give a ledger's file, bundle or address, or --domain.")
    if ledger.startswith(("http://", "https://")):
        return verify_ledger(_fetched(ledger, account), key, owner_key, heads, peers)
    if _is_proof(Path(ledger)):
        return verify_proof(ledger, key, heads)
    return verify_ledger(ledger, key, owner_key, heads, peers)


def _is_proof(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b'"coterie-proof-v1"' in file.read(200)


def _fetched(url: str, account: Path | None) -> list[Entry]:
    """All entries of a running node, read with an auditor's or owner's account."""
    if account is None:
        raise typer.BadParameter("To read a node's ledger, give --account FILE.")
    login = account_at(json.loads(account.read_text()), url)
    node = log_in(url.rstrip("/"), login["email"], login["password"], login.get("node_key"))
    entries: list[Entry] = []
    while page := node.read("ledger", after=len(entries), limit=1000):
        entries += [Entry(**each) for each in page]
    return entries


def account_at(accounts: dict[str, Any], url: str) -> dict[str, Any]:
    """The account for this address: the file is one login, or several by domain."""
    logins = [accounts] if "email" in accounts else list(accounts.values())
    for login in logins:
        if login["url"].rstrip("/") == url.rstrip("/"):
            return dict(login)
    raise typer.BadParameter(f"The account file has no login for {url}.")


@app.command()
@told
def overview(
    accounts: Annotated[
        Path,
        typer.Option(help="Your accounts at the domains, as the owners' invitations wrote it."),
    ],
    hub: Annotated[
        str | None, typer.Option(help="The hub's address: where the domains are now.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Every domain's ledger, verified here against the heads that all others keep of it.

    Example: coterie ledger overview --accounts eve.json --hub http://127.0.0.1:8100
    """
    with console.status("Signing in") as status:
        auditor = Auditor.connect(accounts, hub)
        found = auditor.overview(lambda name: status.update(f"Verifying {name}"))
    if json_:
        print_json(asdict(found))
    else:
        _show_overview(found)
    if any(not domain.verdict.ok for domain in found.domains):
        raise fail("A ledger does not verify.", ExitCode.NOT_VERIFIED)


def _show_overview(found: Overview) -> None:
    for domain in found.domains:
        console.print(f"{domain.name}  {domain.url}", style="bold", markup=False, highlight=False)
        console.print(domain.verdict.text, markup=False, highlight=False)
        for budget in domain.budgets:
            console.print(
                f"Population {budget['population']!r}: epsilon {_figure(budget['spent'])} spent, "
                f"{_figure(budget['held'])} held of {budget['epsilon']:g}; spent by a person at "
                f"every partner {_figure(budget['everywhere'])}; delta {budget['delta']:g}",
                markup=False,
                highlight=False,
            )
    print_table(
        "Co-signed",
        ["ledger of", "by", "up to entry", "of", "when"],
        [[c.domain, c.peer, c.size or "never", c.of, c.time] for c in found.cosignatures],
    )
    for each in found.alerts:
        text = f"{each.domain}: {each.alert.kind}: {each.alert.message}"
        console.print(text, markup=False, highlight=False)
    for name, why in found.absent.items():
        console.print(f"{name}: not read: {why}", markup=False, highlight=False)
    console.print(f"Every epsilon: {found.adjacency}.", highlight=False)


def _figure(epsilon: float | None) -> str:
    return "unbounded" if epsilon is None else f"{epsilon:.3f}"


@app.command(name="alerts")
@told
def show_alerts(domain: DomainOption, json_: JsonOption = False, home: HomeOption = None) -> None:
    """What to ask about: spend rate, similar plans, repeated queries, missing co-signers.

    Example: coterie ledger alerts --domain north
    """
    ledger = _open(home, domain)
    entries = ledger.entries()
    signed = {each["witness"]: each["size"] for each in ledger.heads.kept()}  # oldest first
    found = [*alerts(entries, datetime.now(UTC)), *unsigned_heads(entries, domain, signed)]
    if json_:
        print_json([asdict(alert) for alert in found])
        return
    for alert in found:
        console.print(f"{alert.kind}: {alert.message}", markup=False, highlight=False)
    if not found:
        console.print("Nothing to ask about.", highlight=False)


@app.command()
@told
def heads(
    domain: DomainOption,
    out: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
    home: HomeOption = None,
) -> None:
    """All that a domain holds of its peers' ledgers, co-signed, for an auditor.

    Example: coterie ledger heads --domain south --out peers/south.json
    """
    _write(_open(home, domain).heads.export(), out)


@app.command()
@told
def prove(
    entry: Annotated[int, typer.Argument(help="Number of the entry.")],
    domain: DomainOption,
    size: Annotated[
        int | None, typer.Option(help="Under the head of so many entries, one a peer holds.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
    home: HomeOption = None,
) -> None:
    """A short proof that one entry is in the ledger; `ledger verify` reads it.

    Example: coterie ledger prove 12 --domain north --out entry-12.json
    """
    _write(_open(home, domain).prove(entry, size), out)


@app.command()
@told
def export(
    domain: DomainOption,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path(),
    heads: Annotated[
        Path | None, typer.Option(help="What peers exported (`ledger heads`): file or folder.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """The ledger as a signed bundle, which `ledger verify` reads, as a page and as a PDF.

    Example: coterie ledger export --domain north --out audit/
    """
    from coterie.pdf import as_pdf  # the library behind it is loaded by nobody else

    ledger = _open(home, domain)
    bundle = ledger.export()
    out.mkdir(parents=True, exist_ok=True)
    file, page, pdf = (out / f"{domain}-ledger.{form}" for form in ("json", "html", "pdf"))
    _write(bundle, file)
    verdict = verify_ledger(file, bundle["node_key"], heads=heads)
    written = report(ledger, bundle, verdict)
    page.write_text(written, encoding="utf-8")
    pdf.write_bytes(as_pdf(written))
    console.print(f"{file}\n{page}\n{pdf}", markup=False, highlight=False, soft_wrap=True)
    if not verdict.ok:
        raise fail(verdict.text, ExitCode.NOT_VERIFIED)


def _open(home: Path | None, domain: str) -> Ledger:
    folder = home_of(home).domain(domain)
    settings = folder.settings()
    if not is_ledger(folder.ledger_url):
        raise FolderError(f"{domain} has no ledger yet. Start it: coterie domain up {domain}")
    return Ledger(folder.ledger_url, settings.name, folder.node_key())


def _write(value: dict[str, Any], out: Path | None) -> None:
    if out is None:
        print_json(value)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
