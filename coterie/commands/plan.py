"""`coterie plan`: a data scientist's quote, submission and its standing."""

from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.commands.options import (
    AccountsOption,
    DatasetOption,
    EpsilonOption,
    PlanHash,
    ScriptPath,
)
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
from coterie.home import Home
from coterie.scripts import Script
from network.federation import Federation, connect

app = typer.Typer()


def federation_of(home: Home, accounts: Path | None) -> Federation:
    home.scientist_key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return connect(accounts or home.accounts, key=home.scientist_key)


def script_of(path: Path, dataset: str, epsilon: float) -> Script:
    return Script(str(path.resolve()), dataset, epsilon or None)


@app.command()
@told
def quote(
    script: ScriptPath,
    dataset: DatasetOption = "interactions",
    epsilon: EpsilonOption = 8.0,
    accounts: AccountsOption = None,
    json_: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """What the plan would cost at every partner, and which rules would refuse it.

    Example: coterie plan quote examples/movielens_mf.py --epsilon 8
    """
    federation = federation_of(home_of(home), accounts)
    quotes = federation.quote(script_of(script, dataset, epsilon).plan(federation))
    if json_:
        print_json(quotes)
    else:
        print_quotes(quotes)


@app.command()
@told
def submit(
    script: ScriptPath,
    dataset: DatasetOption = "interactions",
    epsilon: EpsilonOption = 8.0,
    accounts: AccountsOption = None,
    json_: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Put the plan before every partner's owner.

    Example: coterie plan submit examples/movielens_mf.py --epsilon 8
    """
    federation = federation_of(home_of(home), accounts)
    answers = federation.submit(script_of(script, dataset, epsilon).plan(federation))
    if json_:
        print_json(answers)
    else:
        print_answers(answers)
    if any(answer["status"] == "refused" for answer in answers.values()):
        raise fail("At least one partner's policy refused the plan.", ExitCode.REFUSED)


@app.command()
@told
def show(
    plan: PlanHash,
    accounts: AccountsOption = None,
    json_: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Where a submitted plan stands at every partner.

    Example: coterie plan show 3f9a12
    """
    standing = federation_of(home_of(home), accounts).status(plan)
    if json_:
        print_json(standing)
        return
    print_table(
        f"Plan {plan[:12]}",
        ["domain", "status", "decided by", "reason"],
        [[n, s["status"], s["decided_by"], s["reason"]] for n, s in standing.items()],
    )


@app.command()
@told
def withdraw(
    plan: PlanHash,
    reason: Annotated[str, typer.Option(help="Why, for the owners' record.")],
    accounts: AccountsOption = None,
    home: HomeOption = None,
) -> None:
    """Take a plan back at every partner, decided or not; what was released stays charged.

    Example: coterie plan withdraw 3f9a12 --reason "a mistake in the loss"
    """
    for name, status in federation_of(home_of(home), accounts).withdraw(plan, reason).items():
        console.print(f"{name}: {status}", highlight=False)


def print_quotes(quotes: dict[str, dict[str, Any]]) -> None:
    """Cost and verdict per partner, with adjacency and unit beside every epsilon."""
    first = next(iter(quotes.values()))
    print_table(
        "Quote",
        ["domain", "epsilon", "at every partner", "delta", "budget remaining", "verdict"],
        [
            [
                name,
                _epsilon(answer["epsilon"]),
                _epsilon(answer["epsilon_at_every_partner"]),
                f"{answer['delta']:g}",
                _epsilon(answer["budget"]["remaining"]),
                "; ".join(r["message"] for r in answer["refusals"]) or "would be put to the owner",
            ]
            for name, answer in quotes.items()
        ],
    )
    console.print(f"Adjacency and unit: {first['adjacency']}.", highlight=False)
    for name, answer in quotes.items():
        for offer in answer["offers"]:
            console.print(f"{name} would take {offer['how']}: {offer['text']}", highlight=False)


def print_answers(answers: dict[str, dict[str, Any]]) -> None:
    print_table(
        "Submitted",
        ["domain", "status", "plan", "why"],
        [
            [n, a["status"], a["plan_hash"][:12], "; ".join(r["message"] for r in a["refusals"])]
            for n, a in answers.items()
        ],
    )


def _epsilon(value: float | None) -> str:
    return "NOT PRIVATE" if value is None else f"{value:.3f}"
