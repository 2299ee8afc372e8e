"""`coterie requests`: what an owner is asked, and her decisions."""

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
from coterie.partners import open_owner

app = typer.Typer(no_args_is_help=True, help="An owner's requests: list, show, approve, deny.")
Domain = Annotated[str, typer.Option("--domain", help="The owner's domain.")]
PlanHash = Annotated[str, typer.Argument(help="The plan's hash, or how it starts.")]


@app.command(name="list")
@told
def list_(domain: Domain, json_: JsonOption = False, home: HomeOption = None) -> None:
    """All plans that were submitted here, and where they stand.

    Example: coterie requests list --domain north
    """
    plans = open_owner(home_of(home), domain, with_key=False).plans()
    if json_:
        print_json(plans)
        return
    print_table(
        f"Plans at {domain}",
        ["plan", "name", "status", "population", "submitted", "decided by", "reason"],
        [
            [p["plan_hash"][:12], p["name"], p["status"], p["population"], p["submitted"],
             p["decided_by"], p["reason"]]
            for p in plans
        ],
    )  # fmt: skip


@app.command()
@told
def show(
    plan: PlanHash, domain: Domain, json_: JsonOption = False, home: HomeOption = None
) -> None:
    """Who asks, what would leave and how often, what it costs, and the source.

    Example: coterie requests show 3f9a --domain north
    """
    shown = open_owner(home_of(home), domain, with_key=False).show(plan)
    if json_:
        print_json(shown)
    else:
        console.print(shown["explanation"], markup=False, highlight=False)
        console.print(f"Status: {shown['status']}", highlight=False)


@app.command()
@told
def approve(
    plan: PlanHash,
    domain: Domain,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    passphrase: Annotated[
        bool, typer.Option(help="Ask for the passphrase of the owner's key.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Approve a plan and sign its hash with the owner's own key.

    Example: coterie requests approve 3f9a --domain north --reason "as agreed in June"
    """
    secret = typer.prompt("Passphrase", hide_input=True) if passphrase else None
    owner = open_owner(home_of(home), domain, passphrase=secret)
    console.print(f"{domain}: {owner.approve(plan, reason)}")


@app.command()
@told
def deny(
    plan: PlanHash,
    domain: Domain,
    reason: Annotated[str, typer.Option(help="Why; the scientist reads this.")],
    home: HomeOption = None,
) -> None:
    """Deny a plan, or withdraw its approval: the next release doesn't happen.

    Example: coterie requests deny 3f9a --domain north --reason "too many rounds"
    """
    owner = open_owner(home_of(home), domain, with_key=False)
    console.print(f"{domain}: {owner.deny(plan, reason)}")
