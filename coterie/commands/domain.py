"""`coterie domain`: make a partner's node, declare data, start, look, stop, invite, pin."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.backup import back_up
from coterie.backup import restore as put_back
from coterie.commands.output import (
    HomeOption,
    JsonOption,
    console,
    home_of,
    print_json,
    print_table,
    told,
)
from coterie.doctor import Verdict, examine_from_outside, examine_on_its_machine
from coterie.exit_codes import ExitCode
from coterie.partners import (
    add_data,
    create_domain,
    domain_status,
    invite,
    open_owner,
    pin_peer,
    renew_certificate,
    start_domain,
    stop_domain,
    trust_own,
    unpin_peer,
    url_of,
)

app = typer.Typer(no_args_is_help=True, help="A partner's node: make, start, look, stop.")
Name = Annotated[str, typer.Argument(help="The domain's name, e.g. north.")]


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
        tls=tls, proxies=proxy or (), database_url=database,
    )  # fmt: skip
    console.print(f"Domain {name} is in {place.domain(name).path}", highlight=False)
    console.print(f"Owner's login: {place.owner_login(name)}", highlight=False)
    console.print(f"Owner's key:   {place.owner_key(name)} ({settings.owner_key})", highlight=False)
    if tls or proxy:
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
        ["population", "cap", "delta", "spent", "promised", "remaining"],
        [
            [b["population"], "public" if b["public"] else b["epsilon"], b["delta"],
             _figure(b["spent"]), _figure(b["held"]), _figure(b["remaining"])]
            for b in found.get("budgets", [])
        ],
    )  # fmt: skip


@app.command()
@told
def doctor(
    name: Annotated[str, typer.Argument(help="A domain on this machine, or a node's address.")],
    json_: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """What is weak about a node, seen from outside and, for a name, on this machine too.

    Ends with code 9 if something is bad.

    Example: coterie domain doctor north
    """
    place = home_of(home)
    if "://" in name:
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
    unheard: Annotated[
        list[str] | None, typer.Option(help="A partner to do without, gone for good.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Put a back-up back, unless partners co-signed a newer ledger than the one in it.

    Example: coterie domain restore north north-monday.tar --hub https://hub.example
    """
    text = put_back(home_of(home), name, file, heads=heads or (), hub=hub, unheard=unheard or ())
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


@app.command(name="invite")
@told
def invite_(
    name: Name,
    email: Annotated[str, typer.Option(help="The person's e-mail address.")],
    out: Annotated[Path, typer.Option(help="Accounts file to add the login to (0600).")],
    role: Annotated[str, typer.Option(help="scientist or auditor")] = "scientist",
    days: Annotated[int, typer.Option(help="How long the account works, unless renewed.")] = 90,
    again: Annotated[
        bool, typer.Option("--again", help="New password and key; her open plans end.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Make an account on the node and write its generated login to a file for that person.

    Example: coterie domain invite north --email ada@uni.example --out ada.json --days 180
    """
    until = invite(home_of(home), name, email, role, out, days=days, again=again)
    console.print(
        f"{email} can log in to {name} as {role} until {until}: {out}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
@told
def members(name: Name, json_: JsonOption = False, home: HomeOption = None) -> None:
    """The node's accounts, their roles, and until when they work.

    Example: coterie domain members north
    """
    found = open_owner(home_of(home), name, with_key=False).members()
    if json_:
        print_json(found)
        return
    print_table(
        f"Accounts of {name}",
        ["email", "role", "until", ""],
        [[m["email"], m["role"], m["until"] or "-", "over" if m["over"] else ""] for m in found],
    )


@app.command()
@told
def renew(
    name: Name,
    email: Annotated[str, typer.Option(help="The account's e-mail address.")],
    days: Annotated[int, typer.Option(help="How long it works from now on.")] = 90,
    home: HomeOption = None,
) -> None:
    """Let an account work longer, or again.

    Example: coterie domain renew north --email ada@uni.example --days 90
    """
    until = open_owner(home_of(home), name, with_key=False).renew(email, days)
    console.print(f"{email} can log in to {name} until {until}", highlight=False)


@app.command()
@told
def expel(
    name: Name,
    email: Annotated[str, typer.Option(help="The account's e-mail address.")],
    reason: Annotated[str, typer.Option(help="Why; recorded with each plan that ends.")],
    home: HomeOption = None,
) -> None:
    """End an account now, and every open plan of its holder, in the middle of a run too.

    Example: coterie domain expel north --email ada@uni.example --reason "left the university"
    """
    ended = open_owner(home_of(home), name, with_key=False).expel(email, reason)
    console.print(f"{email} is out; {len(ended)} open plans ended.", highlight=False)


@app.command()
@told
def certificate(name: Name, home: HomeOption = None) -> None:
    """Make a new TLS key, certificate and signing request; restart the node to serve with them.

    Example: coterie domain certificate north
    """
    folder = home_of(home).domain(name)
    renew_certificate(folder)
    console.print(
        f"{folder.path / 'tls.pem'} is new. Restart {name}, and give it to whom you invited.",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
@told
def unpin(
    name: Name,
    peer: Annotated[str, typer.Argument(help="The partner's domain.")],
    home: HomeOption = None,
) -> None:
    """Trust a partner's keys no longer: every further round with it is refused, at once.

    Example: coterie domain unpin north east
    """
    unpin_peer(home_of(home).domain(name), peer)
    console.print(f"{name} refuses every further round with {peer}.")


@app.command()
@told
def pin(
    name: Name,
    peer: Annotated[str, typer.Argument(help="The partner's domain.")],
    node_key: Annotated[str, typer.Option(help="Its node key, 64 hex characters.")],
    owner_key: Annotated[str, typer.Option(help="Its owner's key, 64 hex characters.")],
    home: HomeOption = None,
) -> None:
    """Pin a partner's keys, compared with that partner over another channel.

    Example: coterie domain pin north east --node-key 12… --owner-key ab…
    """
    pin_peer(home_of(home).domain(name), peer, node_key, owner_key)
    console.print(f"{name} has pinned {peer}.")


@app.command()
@told
def card(name: Name, home: HomeOption = None) -> None:
    """The keys that partners pin, as JSON.

    Example: coterie domain card north
    """
    folder = home_of(home).domain(name)
    settings = folder.settings()
    node_key = folder.node_key().public_key().public_bytes_raw().hex()
    typer.echo(json.dumps({"name": name, "node_key": node_key, "owner_key": settings.owner_key}))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
