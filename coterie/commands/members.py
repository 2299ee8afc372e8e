"""`coterie domain`: who may call a node: invite, list, renew, expel."""

from pathlib import Path
from typing import Annotated

import typer

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
from coterie.partners import invite, open_owner

app = typer.Typer()


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
