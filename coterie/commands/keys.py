"""`coterie domain`: a node's certificate, and the keys that partners know each other by."""

import json
from typing import Annotated

import typer

from coterie.commands.output import HomeOption, Name, console, home_of, told
from coterie.partners import pin_peer, renew_certificate, unpin_peer

app = typer.Typer()


@app.command()
@told
def certificate(name: Name, home: HomeOption = None) -> None:
    """Make a new TLS key, certificate and signing request; restart the node to serve with them.

    Example: coterie domain certificate north
    """
    folder = home_of(home).domain(name)
    renew_certificate(home_of(home), name)
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
