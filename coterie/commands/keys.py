"""`coterie domain`: a node's certificate, and the keys that partners know each other by."""

import json
from pathlib import Path
from typing import Annotated

import typer

from coterie.addresses import renew_certificate
from coterie.commands.output import HomeOption, Name, console, home_of, told
from coterie.partners import pin_peer, unpin_peer
from coterie.rotation import follow, pin_successor, replace_owner_key

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
    node_key: Annotated[str | None, typer.Option(help="Its node key, 64 hex characters.")] = None,
    owner_key: Annotated[
        str | None, typer.Option(help="Its owner's key, 64 hex characters.")
    ] = None,
    letter: Annotated[
        Path | None,
        typer.Option(help="Its `coterie domain rotate` letter: the owner's new key, instead."),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Pin a partner's keys, compared with that partner over another channel.

    A new key of its owner needs no comparing: its letter is signed by the key pinned before.

    Example: coterie domain pin north east --node-key 12… --owner-key ab…
    """
    folder = home_of(home).domain(name)
    if letter is not None and (node_key, owner_key) == (None, None):
        new = pin_successor(folder, peer, letter)
        console.print(f"{name} has pinned {peer}'s owner's new key {new}.", soft_wrap=True)
        return
    if letter is not None or node_key is None or owner_key is None:
        raise typer.BadParameter("Give --node-key and --owner-key, or --letter.")
    pin_peer(folder, peer, node_key, owner_key)
    console.print(f"{name} has pinned {peer}.")


@app.command()
@told
def rotate(
    name: Name,
    out: Annotated[
        Path | None, typer.Option(help="The letter to write, for partners and the node's machine.")
    ] = None,
    letter: Annotated[
        Path | None, typer.Option(help="On the node's machine: follow this letter.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; the letter and the ledger say it.")] = "",
    passphrase: Annotated[
        bool, typer.Option(help="Ask for the passphrases of the old key's file and the new one's.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Replace the owner's signing key; plans approved with the old one need it again.

    Example: coterie domain rotate north --out north-letter.json --reason "new laptop"
    """
    place = home_of(home)
    if letter is not None:
        console.print(f"{name}'s owner's key is {follow(place.domain(name), letter)}.")
        return
    if out is None:
        raise typer.BadParameter("Give --out for the letter to write, or --letter to follow one.")
    old = typer.prompt("Passphrase now", hide_input=True) if passphrase else None
    new = (
        typer.prompt("New passphrase", hide_input=True, confirmation_prompt=True)
        if passphrase
        else None
    )
    key = replace_owner_key(place, name, out, passphrase=old, new=new, reason=reason)
    console.print(f"{name}'s owner's key is {key}.", soft_wrap=True)
    console.print(
        f"Give {out} to each partner: coterie domain pin THEIRS {name} --letter {out}",
        highlight=False,
        soft_wrap=True,
    )


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
