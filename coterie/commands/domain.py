"""`coterie domain`: make a partner's node, declare data, start, look, back up, stop."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.addresses import trust_own, url_of
from coterie.backup import back_up
from coterie.backup import restore as put_back
from coterie.commands import keys, members
from coterie.commands.output import (
    HomeOption,
    JsonOption,
    Name,
    console,
    home_of,
    print_json,
    print_table,
    told,
)
from coterie.doctor import examine_on_its_machine
from coterie.exit_codes import ExitCode
from coterie.finding import Verdict
from coterie.heard import Partners
from coterie.outside import examine_from_outside
from coterie.partners import (
    add_data,
    create_domain,
    domain_status,
    start_domain,
    stop_domain,
    with_password,
)
from network.tls import trust_files

app = typer.Typer()
for each in (members, keys):
    app.add_typer(each.app)


@app.command()
@told
def init(
    name: Name,
    port: Annotated[int, typer.Option(help="Port the node will listen on.")] = 8101,
    host: Annotated[str, typer.Option(help="Address the node will listen on.")] = "127.0.0.1",
    url: Annotated[
        str | None,
        typer.Option(help="Address partners reach it by, if not HOST:PORT: a proxy's, say."),
    ] = None,
    tls: Annotated[
        bool, typer.Option("--tls", help="Make a TLS key, certificate and CSR; serve with them.")
    ] = False,
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="Address or network of a TLS proxy before the node; may be repeated."),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            envvar="COTERIE_DATABASE_URL",
            help="postgresql+psycopg2://USER:PASSWORD@HOST:PORT/DB instead of SQLite files.",
        ),
    ] = None,
    database_password: Annotated[
        Path | None,
        typer.Option(help="File of the database's password, made if missing, for a URL without."),
    ] = None,
    passphrase: Annotated[
        bool, typer.Option(help="Ask for a passphrase to encrypt the owner's key with.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Make a new domain: node key, owner's key and login, all generated.

    Example: coterie domain init north --port 8101 --tls --url https://north.example:8101
    """
    place = home_of(home)
    secret = (
        typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True)
        if (passphrase)
        else None
    )
    settings = create_domain(
        place, name, host, port, secret, url,
        tls=tls, proxies=proxy or (),
        database_url=with_password(database, database_password),
    )  # fmt: skip
    console.print(f"Domain {name} is in {place.domain(name).path}", highlight=False)
    console.print(f"Owner's login: {place.owner_login(name)}", highlight=False)
    console.print(f"Owner's key:   {place.owner_key(name)} ({settings.owner_key})", highlight=False)
    if tls:
        request = place.domain(name).path / "tls.csr"
        console.print(f"To have an authority sign: {request}", highlight=False, soft_wrap=True)
    console.print(f"Next: coterie domain data {name} --help", highlight=False)


@app.command()
@told
def data(
    name: Name,
    file: Annotated[Path, typer.Option(help="csv, csv.xz or parquet: user,item[,value][,time].")],
    catalogue: Annotated[Path, typer.Option(help="The partners' item ids, one per line.")],
    users: Annotated[int, typer.Option(help="Declared maximum number of users.")],
    dataset: Annotated[str, typer.Option(help="Name of the data set.")] = "interactions",
    population: Annotated[
        str | None, typer.Option(help="Whose budget it is (default: the data set's name).")
    ] = None,
    interactions_per_user: Annotated[
        int, typer.Option(help="Declared maximum of interactions per user.")
    ] = 1024,
    holdout: Annotated[
        Path | None, typer.Option(help="user,item: held-out items for evaluation steps.")
    ] = None,
    epsilon: Annotated[float, typer.Option(help="Budget of the population.")] = 10.0,
    public: Annotated[
        bool, typer.Option("--public", help="Declare the data public: noise isn't required.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Declare a data set and copy its rows into the domain's own folder (0700).

    Example: coterie domain data north --file north.csv --catalogue items.txt --users 5000
    """
    folder = home_of(home).domain(name)
    report = add_data(
        folder,
        file=file,
        catalogue=catalogue,
        dataset=dataset,
        population=population or dataset,
        users=users,
        interactions_per_user=interactions_per_user,
        holdout=holdout,
        epsilon=epsilon,
        public=public,
    )
    console.print(f"{name} holds '{dataset}'. For the owner only: {report}", highlight=False)


@app.command()
@told
def up(
    name: Name,
    hub: Annotated[str | None, typer.Option(help="Announce the domain to this hub.")] = None,
    hub_certificate: Annotated[
        Path | None, typer.Option(help="The hub's certificate, if no public authority signed it.")
    ] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Serve in this process, as containers do.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Start the domain's node.

    Example: coterie domain up north
    """
    url = start_domain(
        home_of(home), name, hub, foreground=foreground, hub_certificate=hub_certificate
    )
    console.print(f"{name} is up at {url}", highlight=False)


@app.command()
@told
def status(name: Name, json_: JsonOption = False, home: HomeOption = None) -> None:
    """Version, uptime, data sets, budgets, partners and the last heads they co-signed.

    Example: coterie domain status north --json
    """
    found: dict[str, Any] = domain_status(home_of(home), name)
    if json_:
        print_json(found)
        return
    if not found["up"]:
        console.print(f"{name}: down at {found['url']}", highlight=False)
        return
    console.print(
        f"{name}: up at {found['url']} for {found['up_minutes']} min, version {found['version']}; "
        f"data sets: {', '.join(found['data_sets'])}",
        highlight=False,
        soft_wrap=True,
    )
    print_table(
        "Partners",
        ["name", "node key", "co-signed entries", "at"],
        [
            [peer, facts["node_key"][:16], facts["cosigned"] or "-", facts["cosigned_at"] or "-"]
            for peer, facts in found["peers"].items()
        ],
    )
    print_table(
        "Budgets (epsilon; add/remove one user with all her interactions, per domain)",
        ["population", "cap", "delta", "spent", "promised", "remaining", "spent, at every partner"],
        [
            [b["population"], "public" if b["public"] else b["epsilon"], b["delta"],
             _figure(b["spent"]), _figure(b["held"]), _figure(b["remaining"]),
             _figure(b["everywhere"])]
            for b in found.get("budgets", [])
        ],
    )  # fmt: skip


@app.command()
@told
def doctor(
    name: Annotated[str, typer.Argument(help="A domain on this machine, or a node's address.")],
    certificate: Annotated[
        Path | None,
        typer.Option(help="What an address is trusted by (PEM), if no public authority signed it."),
    ] = None,
    shown: Annotated[
        Path | None, typer.Option(help="A certificate of yours (PEM), where it asks for one.")
    ] = None,
    shown_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    json_: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """What is weak about a node, seen from outside and, for a name, on this machine too.

    Ends with code 9 if something is bad.

    Example: coterie domain doctor https://north.example:8443 --certificate north.pem
    """
    place = home_of(home)
    if "://" in name:
        if certificate is not None or shown is not None:
            trust_files(name, certificate, shown, shown_key)
        findings = examine_from_outside(name)
    else:
        here = examine_on_its_machine(place, name)
        trust_own(place.domain(name))
        findings = [*examine_from_outside(url_of(place.domain(name).settings())), *here]
    if json_:
        print_json([asdict(finding) for finding in findings])
    else:
        print_table(name, ["check", "verdict", "what was found"],
                    [[f.check, str(f.verdict), f.detail] for f in findings])  # fmt: skip
    if any(finding.verdict is Verdict.BAD for finding in findings):
        raise typer.Exit(ExitCode.NOT_VERIFIED)


@app.command()
@told
def backup(
    name: Name,
    out: Annotated[Path, typer.Argument(help="The file to write; it must not exist yet.")],
    home: HomeOption = None,
) -> None:
    """Write all that a node keeps to one file, also while it runs: keys and data too.

    Example: coterie domain backup north north-monday.tar
    """
    size = back_up(home_of(home), name, out)
    console.print(f"{out}: {size / 2**20:.1f} MiB. Keep it as safe as the node.", soft_wrap=True)


@app.command()
@told
def restore(
    name: Name,
    file: Annotated[Path, typer.Argument(help="What `coterie domain backup` wrote.")],
    heads: Annotated[
        list[Path] | None, typer.Option(help="A partner's `coterie ledger heads`; repeat it.")
    ] = None,
    hub: Annotated[
        str | None, typer.Option(help="Ask the partners' nodes, by this hub's directory.")
    ] = None,
    hub_certificate: Annotated[
        Path | None, typer.Option(help="The hub's certificate, if no public authority signed it.")
    ] = None,
    certificate: Annotated[
        list[Path] | None, typer.Option(help="A partner's node's certificate, too; repeat it.")
    ] = None,
    unheard: Annotated[
        list[str] | None, typer.Option(help="A partner to do without, gone for good.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Put a back-up back, unless partners co-signed a newer ledger than the one in it.

    Example: coterie domain restore north north-monday.tar --hub https://hub.example
    """
    asked = Partners(hub, hub_certificate, certificate or ())
    place = home_of(home)
    text = put_back(place, name, file, heads=heads or (), partners=asked, unheard=unheard or ())
    console.print(text, markup=False, highlight=False)
    console.print(f"{name} is back. Start it: coterie domain up {name}")


@app.command()
@told
def stop(name: Name, home: HomeOption = None) -> None:
    """Stop the node.

    Example: coterie domain stop north
    """
    stopped = stop_domain(home_of(home), name)
    console.print(f"{name} " + ("stopped" if stopped else "was not running"))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
