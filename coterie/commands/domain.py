"""`coterie domain`: make a partner's node, declare data, start, look, stop, invite, pin."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

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
    pin_peer,
    start_domain,
    stop_domain,
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
    passphrase: Annotated[
        bool, typer.Option(help="Ask for a passphrase to encrypt the owner's key with.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Make a new domain: node key, owner's key and login, all generated.

    Example: coterie domain init north --port 8101
    """
    place = home_of(home)
    secret = (
        typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True)
        if (passphrase)
        else None
    )
    settings = create_domain(place, name, host, port, secret, url)
    console.print(f"Domain {name} is in {place.domain(name).path}", highlight=False)
    console.print(f"Owner's login: {place.owner_login(name)}", highlight=False)
    console.print(f"Owner's key:   {place.owner_key(name)} ({settings.owner_key})", highlight=False)
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
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Serve in this process, as containers do.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Start the domain's node.

    Example: coterie domain up north
    """
    url = start_domain(home_of(home), name, hub, foreground=foreground)
    console.print(f"{name} is up at {url}", highlight=False)


@app.command()
@told
def status(name: Name, json_: JsonOption = False, home: HomeOption = None) -> None:
    """Whether the node is up, its data sets and its budgets.

    Example: coterie domain status north --json
    """
    found: dict[str, Any] = domain_status(home_of(home), name)
    if json_:
        print_json(found)
        return
    console.print(f"{name}: {'up' if found['up'] else 'down'} at {found['url']}", highlight=False)
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
    home: HomeOption = None,
) -> None:
    """Make an account on the node and write its generated login to a file for that person.

    Example: coterie domain invite north --email ada@uni.example --out ada.json
    """
    invite(home_of(home), name, email, role, out)
    console.print(f"{email} can log in to {name} as {role}: {out}", highlight=False)


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
    console.print(f"{name} has pinned {peer}. Restart the node to use it.")


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
