"""`coterie hub`: the network's directory."""

from pathlib import Path
from typing import Annotated

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
from coterie.hub import start_hub, stop_hub
from network.hub import admit_member, directory
from network.tls import trust_files

app = typer.Typer()


@app.command()
@told
def up(
    port: Annotated[int, typer.Option(help="Port the hub will listen on.")] = 8100,
    host: Annotated[str, typer.Option(help="Address the hub will listen on.")] = "127.0.0.1",
    tls: Annotated[
        bool, typer.Option("--tls", help="At the first start: make a certificate and use it.")
    ] = False,
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="At the first start: address or network of a TLS proxy before it."),
    ] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Serve in this process, as containers do.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Start the hub; the first start makes its key and folder.

    Example: coterie hub up --port 8100
    """
    url = start_hub(home_of(home), host, port, foreground=foreground, tls=tls, proxies=proxy or ())
    console.print(f"The hub is up at {url}", highlight=False)


@app.command()
@told
def stop(home: HomeOption = None) -> None:
    """Stop the hub.

    Example: coterie hub stop
    """
    console.print("The hub " + ("stopped" if stop_hub(home_of(home)) else "was not running"))


@app.command()
@told
def admit(
    name: Annotated[str, typer.Argument(help="The domain's name.")],
    node_key: Annotated[str, typer.Option(help="Its node key, 64 hex characters.")],
    home: HomeOption = None,
) -> None:
    """List a domain in the directory once it announces itself.

    Example: coterie hub admit north --node-key 12…
    """
    admit_member(home_of(home).hub, name, node_key)
    console.print(f"{name} is admitted.")


@app.command(name="list")
@told
def list_(
    url: Annotated[str, typer.Argument(help="The hub's address.")],
    certificate: Annotated[
        Path | None, typer.Option(help="Its certificate, if no public authority signed it.")
    ] = None,
    shown: Annotated[
        Path | None, typer.Option(help="A certificate of yours (PEM), where it asks for one.")
    ] = None,
    shown_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    json_: JsonOption = False,
) -> None:
    """The domains that announced themselves, with validly signed cards.

    Example: coterie hub list http://127.0.0.1:8100
    """
    if certificate is not None or shown is not None:
        trust_files(url, certificate, shown, shown_key)
    cards = directory(url)
    if json_:
        print_json([card.model_dump() for card in cards.values()])
        return
    print_table(
        "Domains",
        ["name", "url", "node key", "owner key"],
        [[c.name, c.url, c.node_key[:16], c.owner_key[:16]] for c in cards.values()],
    )
