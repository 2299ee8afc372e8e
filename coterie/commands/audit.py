"""`coterie audit`: what one run of a plan on made-up users says about its privacy."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie.commands.options import AccountsOption, DatasetOption, EpsilonOption, ScriptPath
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

if TYPE_CHECKING:
    from coterie.audit import Audit


@told
def audit(
    plan: ScriptPath,
    dataset: DatasetOption = "interactions",
    epsilon: EpsilonOption = 8.0,
    canaries: Annotated[int, typer.Option(min=2, max=20_000, help="Made-up users.")] = 1000,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999999, help="With which the bound holds.")
    ] = 0.95,
    items: Annotated[
        int | None, typer.Option(min=1, help="Catalogue size (default: as the partners declare).")
    ] = None,
    interactions: Annotated[int, typer.Option(min=1, help="With --items: per user.")] = 50,
    users: Annotated[int, typer.Option(min=1, help="With --items: declared bound.")] = 10_000,
    plot: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("audit.png"),
    accounts: AccountsOption = None,
    json_: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """An empirical lower bound on a plan's epsilon, from one run on canaries (no private data).

    The plan's private sums run on this machine through the same engine and noise as on a node;
    half of the canaries take part, and which is guessed from the releases alone.

    Example: coterie audit examples/movielens_mf.py --items 1682 --interactions 50
    """
    from coterie.audit import audit as run
    from coterie.commands.plan import federation_of, script_of
    from coterie.plots import plot_audit
    from network.program import DataSet
    from policies.accounting import ADJACENCY

    script = script_of(plan, dataset, epsilon)
    if items is not None:
        data = DataSet(dataset, items, interactions, users, "0" * 64, script.epsilon is None)
    else:
        data = federation_of(home_of(home), accounts).data(dataset)
    found = run(script.write(data), canaries, confidence)
    plot_audit(plot, found)
    shown = {
        "lower_bound": round(found.bound, 4),
        "epsilon": found.epsilon,
        "delta": found.delta,
        "confidence": found.confidence,
        "releases": found.releases,
        "canaries": found.guesses.canaries,
        "guesses": found.guesses.made,
        "correct": found.guesses.correct,
        "adjacency": ADJACENCY,
        "verdict": found.verdict,
        "plot": str(plot),
    }
    if json_:
        print_json(shown)
    else:
        print_audit(found, plot)
    if found.contradicts:
        raise fail(found.verdict, ExitCode.NOT_VERIFIED)


def print_audit(found: "Audit", plot: Path) -> None:
    """The bound beside the accounted epsilon, and what it is worth."""
    from policies.accounting import ADJACENCY

    guesses = found.guesses
    accounted = "NOT PRIVATE" if found.epsilon is None else f"{found.epsilon:.3f}"
    print_table(
        f"One run on {guesses.canaries} canaries, {found.releases} releases, delta {found.delta:g}",
        ["", "epsilon"],
        [
            [f"empirical lower bound, confidence {found.confidence:g}", f"{found.bound:.3f}"],
            ["accounted, of these releases", accounted],
        ],
    )
    console.print(
        f"{guesses.correct} of {guesses.made} guesses were right. {found.verdict}\n"
        f"Adjacency and unit: {ADJACENCY}. Picture: {plot}",
        highlight=False,
    )
