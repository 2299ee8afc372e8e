"""The `coterie` command.

What a command needs is imported when it is called: Syft and PyTorch take seconds.
"""

import json
import os
import sys
from collections.abc import MutableMapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from typer.core import TyperGroup
from typer.main import get_group

from coterie.commands.audit import audit
from coterie.commands.output import (
    HomeOption,
    JsonOption,
    console,
    fail,
    home_of,
    print_table,
    told,
)
from coterie.exit_codes import ExitCode

_GROUPS = {
    "domain": "A partner's node: make, start, look, stop.",
    "hub": "The network's hub: start it, list domains.",
    "requests": "An owner's requests: list, show, approve, deny.",
    "rules": "An owner's rules: show, preview, sign, write.",
    "plan": "A plan before it runs: quote, submit, show.",
    "run": "An approved plan's run: start, resume, show, verify.",
    "ledger": "A domain's ledger: show, verify, prove, export it.",
}
"""Each group's help; its commands are those of `coterie.commands.NAME`."""


class _Group(TyperGroup):
    """A group whose module is imported when its commands are asked for."""

    def __init__(self, name: str, told: str) -> None:
        super().__init__(name=name, help=told, no_args_is_help=True)

    @property
    def commands(self) -> MutableMapping[str, click.Command]:
        return get_group(import_module(f"coterie.commands.{self.name}").app).commands

    @commands.setter
    def commands(self, _: MutableMapping[str, click.Command]) -> None:
        """Click would set the commands that it was given: none."""


class _Coterie(TyperGroup):
    def __init__(self, **about: Any) -> None:
        super().__init__(**about)
        self.commands = {**{n: _Group(n, told) for n, told in _GROUPS.items()}, **self.commands}


app = typer.Typer(
    cls=_Coterie,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Partners who can't share their users' interactions train one recommender together.",
)
app.command()(audit)


@app.command()
@told
def dealer(
    key: Annotated[Path, typer.Option(help="File of the dealer's key; made if there is none.")],
    domain: Annotated[
        list[str], typer.Option("--domain", help="Key of a node to deal to; one for each partner.")
    ],
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8200,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Deal for products and truncations of tensors, as a party who takes no other part.

    Example: coterie dealer --key dealer.pem --domain 3c… --domain 9a… --domain d1… --port 8200
    """
    from network.dealer import serve

    serve(key, host, port, domain)


@app.command()
@told
def recommend(
    domain: Annotated[str, typer.Option("--domain", help="The partner's domain.")],
    user: Annotated[str, typer.Option("--user", help="One of the partner's own users.")],
    count: Annotated[int, typer.Option(help="How many items.")] = 10,
    json_: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Unseen items for one of the partner's own users, made on the partner's own node.

    Example: coterie recommend --domain north --user 42
    """
    from coterie.partners import open_owner

    owner = open_owner(home_of(home), domain, with_key=False)
    items = owner.node.read("recommend", user=user, count=count)
    if json_:
        typer.echo(json.dumps(items))
    else:
        print_table(f"For user {user}", ["item", "score"], [[i, f"{s:.3f}"] for i, s in items])


@app.command()
@told
def dashboard(
    domain: Annotated[
        str | None, typer.Option("--domain", help="The partner whose dashboard this is.")
    ] = None,
    hub: Annotated[
        str | None,
        typer.Option("--hub", help="The hub's address: sign in at several domains at once."),
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the page.")] = 8501,
    host: Annotated[str, typer.Option(help="Address of the page.")] = "127.0.0.1",
    url: Annotated[
        str | None, typer.Option(help="The node's address, if it isn't on this machine.")
    ] = None,
    base_path: Annotated[
        str, typer.Option(help="Path below which a proxy shows the page, such as /coterie.")
    ] = "",
    tls_certificate: Annotated[
        Path | None, typer.Option(help="File (PEM) for the page to serve TLS; needs --tls-key.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    hub_certificate: Annotated[
        Path | None, typer.Option(help="File of the hub's certificate.")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(help="With --hub: the nodes' keys as owners gave them (JSON)."),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Serve the dashboard of one partner, or of the hub's directory for who has several accounts.

    Example: coterie dashboard --domain north
    """
    from coterie.pages import Place, dashboard_command, hub_dashboard_command

    if (tls_certificate is None) != (tls_key is None):
        raise fail("Give --tls-certificate and --tls-key, or neither.", ExitCode.USAGE)
    place = Place(host, port, base_path, tls_certificate, tls_key)
    if domain is not None and hub is None:
        command = dashboard_command(home_of(home), domain, url, place)
    elif hub is not None and domain is None:
        command = hub_dashboard_command(home_of(home), hub, hub_certificate, place, keys)
    else:
        raise fail("Give either --domain or --hub.", ExitCode.USAGE)
    console.print(f"Dashboard of {domain or hub}: {place.address}", highlight=False)
    os.execv(sys.executable, [sys.executable, *command])


@app.command()
@told
def certificate(
    folder: Annotated[Path, typer.Argument(help="Where tls.pem, tls.key and tls.csr are made.")],
    name: Annotated[str, typer.Option(help="Whose it is: a proxy's, say, or your own.")],
    host: Annotated[list[str] | None, typer.Option(help="A name or address in it; repeat.")] = None,
) -> None:
    """Make a TLS key, self-signed certificate and CSR: for a proxy, or to show to a node.

    Example: coterie certificate proxy/ --name "our proxy" --host north.example
    """
    from network.tls import create_certificate

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    create_certificate(folder, name, host or [])
    console.print(f"{folder / 'tls.pem'}, its key, and a signing request.", highlight=False)


@app.command()
@told
def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="csv, csv.xz, parquet or an NCF folder (default: MovieLens-100K)."),
    ] = None,
    epsilon: Annotated[
        list[float] | None,
        typer.Option(help="Epsilon of the private run (default: 8); repeat it to compare several."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of split, negatives and first state.")] = 0,
    deny: Annotated[str | None, typer.Option(help="Deny at this partner.")] = None,
    review: Annotated[
        bool, typer.Option("--review", help="Wait for approvals from dashboard or CLI.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Leave nodes and a dashboard running.")
    ] = False,
    results: Annotated[Path, typer.Option(help="Folder for plots and figures.")] = Path(
        "demo-results"
    ),
    json_: Annotated[
        Path | None, typer.Option("--json", help="Write every figure to this file.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """The main job: three partners train one recommender on real data, end to end.

    Example: coterie demo --epsilon 8 --json figures.json
    """
    from coterie.demo import Demo

    place = home_of(home if home is not None else Path(".coterie") / "demo")
    Demo(
        home=place,
        data=data,
        epsilons=tuple(epsilon or (8.0,)),
        seed=seed,
        deny=deny,
        review=review,
        serve=serve,
        results=results,
        json_file=json_,
    ).run()


if __name__ == "__main__":
    app()
