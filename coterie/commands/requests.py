"""`coterie requests`: what an owner is asked, and her decisions."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

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
from coterie.owner import Owner
from coterie.partners import open_owner
from policies.approvals import APPROVAL_DAYS, load_owner_key
from policies.envelopes import EnvelopeError

app = typer.Typer()
Domain = Annotated[str, typer.Option("--domain", help="The owner's domain.")]
PlanHash = Annotated[
    str, typer.Argument(help="The plan's hash, or its first 6 or more characters.")
]
Passphrase = Annotated[bool, typer.Option(help="Ask for the passphrase of the owner's key.")]
Days = Annotated[float, typer.Option(help="How long it holds.")]


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

    Example: coterie requests show 3f9a12 --domain north
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
    days: Days = APPROVAL_DAYS,
    key: Annotated[Path | None, typer.Option(help="Another key file: a second approver's.")] = None,
    passphrase: Passphrase = False,
    home: HomeOption = None,
) -> None:
    """Approve a plan and sign its hash with the owner's own key.

    Example: coterie requests approve 3f9a12 --domain north --reason "as agreed in June"
    """
    owner = _opened(home, domain, key, passphrase)
    console.print(f"{domain}: {owner.approve(plan, reason, days)}")


@app.command()
@told
def sign(
    plan: PlanHash,
    domain: Domain,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    days: Days = APPROVAL_DAYS,
    key: Annotated[Path | None, typer.Option(help="Another key file.")] = None,
    passphrase: Passphrase = False,
    home: HomeOption = None,
) -> None:
    """Print the signed approval of a plan without sending it, to hand it over elsewhere.

    Example: coterie requests sign 3f9a12 --domain north
    """
    typer.echo(_opened(home, domain, key, passphrase).sign(plan, reason, days))


@app.command()
@told
def revoke(
    plan: PlanHash,
    domain: Domain,
    reason: Annotated[str, typer.Option(help="Why; the scientist reads this.")],
    home: HomeOption = None,
) -> None:
    """Take an approval back, in the middle of a run too: the next release doesn't happen.

    Example: coterie requests revoke 3f9a12 --domain north --reason "contract ended"
    """
    owner = open_owner(home_of(home), domain, with_key=False)
    console.print(f"{domain}: {owner.revoke(plan, reason)}")


@app.command()
@told
def preapprove(
    plan: PlanHash,
    domain: Domain,
    plans: Annotated[int, typer.Option(help="How many plans at most.")],
    days: Days = 30,
    epsilon: Annotated[float | None, typer.Option(help="Of each plan at most.")] = None,
    total_epsilon: Annotated[float | None, typer.Option(help="Of all of them at most.")] = None,
    releases: Annotated[int | None, typer.Option(help="Of each plan at most.")] = None,
    noise_multiplier: Annotated[float | None, typer.Option(help="Of each release, least.")] = None,
    same_computation: Annotated[
        bool, typer.Option("--same-computation", help="Other numbers too, within these limits.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    passphrase: Passphrase = False,
    home: HomeOption = None,
) -> None:
    """Sign an envelope: plans like this one are approved when they come.

    Without --same-computation only repetitions that differ in name, purpose and note.

    Example: coterie requests preapprove 3f9a12 --domain north --plans 3 --days 14
    """
    owner = _opened(home, domain, None, passphrase)
    given = {
        "epsilon": epsilon,
        "total_epsilon": total_epsilon,
        "releases": releases,
        "noise_multiplier": noise_multiplier,
    }
    limits = {name: value for name, value in given.items() if value is not None}
    try:
        envelope = owner.envelope(
            plan, plans, days, reason, identical=not same_computation, **limits
        )
    except EnvelopeError as error:
        raise fail(str(error), ExitCode.USAGE) from None
    console.print(envelope.explain(), markup=False, highlight=False)
    console.print(f"{domain} keeps envelope {owner.preapprove(envelope)[:16]}", highlight=False)


@app.command()
@told
def envelopes(
    domain: Domain,
    discard: Annotated[
        str | None, typer.Option(help="Let this envelope approve nothing more.")
    ] = None,
    json_: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """The envelopes that a domain keeps, and how many plans each approved.

    Example: coterie requests envelopes --domain north --discard 81c2
    """
    owner = open_owner(home_of(home), domain, with_key=False)
    if discard is not None:
        owner.discard(discard)
    if json_:
        print_json(owner.envelopes())
        return
    for each in owner.envelopes():
        console.print(each["text"], markup=False, highlight=False)
        console.print(f"Used for {each['used']} plans so far.", highlight=False)


def _opened(home: Path | None, domain: str, key: Path | None, passphrase: bool) -> Owner:
    """The owner's session with a key to sign with: hers, or the one in `key`."""
    secret = typer.prompt("Passphrase", hide_input=True) if passphrase else None
    owner = open_owner(home_of(home), domain, with_key=key is None, passphrase=secret)
    return owner if key is None else replace(owner, key=load_owner_key(key, secret))


@app.command()
@told
def deny(
    plan: PlanHash,
    domain: Domain,
    reason: Annotated[str, typer.Option(help="Why; the scientist reads this.")],
    home: HomeOption = None,
) -> None:
    """Deny a plan that waits for a decision. To take an approval back, use revoke.

    Example: coterie requests deny 3f9a12 --domain north --reason "too many rounds"
    """
    owner = open_owner(home_of(home), domain, with_key=False)
    console.print(f"{domain}: {owner.deny(plan, reason)}")
