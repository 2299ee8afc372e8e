"""`coterie run`: execute an approved plan, take it up again, look at it."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from coterie.commands.options import AccountsOption, DatasetOption, EpsilonOption, ScriptPath
from coterie.commands.output import (
    HomeOption,
    JsonOption,
    console,
    errors,
    fail,
    home_of,
    print_json,
    print_table,
    told,
)
from coterie.commands.plan import federation_of, script_of
from coterie.exit_codes import ExitCode
from coterie.home import Home
from coterie.scripts import Script
from network.federation import Federation
from network.rounds import verify_rounds
from network.smpc.messages import SharingRefused
from network.training import Progress as Release
from network.training import Run, epsilon_everywhere
from policies.accounting import ADJACENCY, epsilon_at_every_partner
from policies.plan import Plan

app = typer.Typer()
RunFolder = Annotated[Path, typer.Argument(help="The run's folder.")]


@app.command()
@told
def start(
    script: ScriptPath,
    dataset: DatasetOption = "interactions",
    epsilon: EpsilonOption = 8.0,
    accounts: AccountsOption = None,
    json_: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Run a plan that every owner has approved.

    Example: coterie run start examples/movielens_mf.py --epsilon 8
    """
    place = home_of(home)
    federation = federation_of(place, accounts)
    written = script_of(script, dataset, epsilon)
    folder = place.runs / federation.bind(written.plan(federation)).hash[:16]
    _train_and_print(federation, written, folder, json_)


@app.command()
@told
def resume(
    run: RunFolder,
    accounts: AccountsOption = None,
    json_: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Go on where a run stopped; what was released is neither computed nor charged again.

    Example: coterie run resume ~/.coterie/scientist/runs/3f9a12…
    """
    script = Script.load(run)
    if home is None and accounts is None:
        home = Home.of_run(run)
    federation = federation_of(home_of(home), accounts)
    _train_and_print(federation, script, run, json_)


@app.command()
@told
def show(run: RunFolder, json_: JsonOption = False) -> None:
    """What a run has released so far, from its journal.

    Example: coterie run show ~/.coterie/scientist/runs/3f9a12… --json
    """
    file = run / "journal.json"
    if not file.exists():
        raise typer.BadParameter(f"{run} holds no journal; nothing was released yet.")
    journal = json.loads(file.read_text())
    if json_:
        print_json(_with_bound(run, journal))
    else:
        print_history(run, [Release(**line) for line in journal["history"]])


@app.command()
@told
def verify(run: RunFolder, json_: JsonOption = False) -> None:
    """Recompute every total of a run from what its domains signed; name who lied, if anyone.

    Needs no node. It takes the domains' keys from the run's plan; compare the plan's hash, which
    it prints, with what the owners signed (`coterie ledger verify`).

    Example: coterie run verify ~/.coterie/scientist/runs/3f9a12…
    """
    plan, journal = run / "plan.json", run / "journal.json"
    if not plan.exists() or not (run / "rounds").exists():
        raise typer.BadParameter(f"{run} holds no run that released anything.")
    try:
        approved = Plan.from_json(plan.read_text())
        checked = verify_rounds(approved, run)
        # What was revealed of tensors is in no journal.
        written = json.loads(journal.read_text())["history"] if journal.exists() else []
        history = [Release(**line) for line in written]
    except SharingRefused as error:
        raise fail(f"Not verified. {error}", ExitCode.NOT_VERIFIED) from None
    except (KeyError, OSError, TypeError, ValueError, RecursionError) as error:
        why = f"Not verified. The run's plan or journal is unreadable ({type(error).__name__})."
        raise fail(why, ExitCode.NOT_VERIFIED) from None
    missing = [r for r in history if (r.step, r.release, r.attempt) not in checked]
    if missing:
        where = f"{missing[0].step} {missing[0].release}"
        raise fail(f"Not verified. The transcript of {where} is missing.", ExitCode.NOT_VERIFIED)
    if json_:
        print_json({"plan_hash": approved.hash, "totals": len(checked)})
        return
    console.print(
        f"{len(checked)} totals of plan {approved.hash} are the sums of what its domains signed.",
        highlight=False,
    )


def _train_and_print(federation: Federation, script: Script, folder: Path, json_: bool) -> None:
    run = train_with_bar(federation, script, folder, errors if json_ else console)
    if json_:
        print_json(_with_bound(folder, json.loads((folder / "journal.json").read_text())))
    else:
        print_run(run)


def train_with_bar(
    federation: Federation, script: Script, folder: Path, shown: Console = console
) -> Run:
    """Train with a progress bar that shows round, metric and epsilon so far."""
    plan = script.plan(federation)
    script.save(folder)
    shown.print(_unit(federation.bind(plan)), highlight=False)
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}"), console=shown,
    )  # fmt: skip
    with bar:
        task = bar.add_task("training", total=None, figures="")
        latest: dict[str, float] = {}

        def advance(release: Release) -> None:
            latest.update(release.metrics)
            bar.update(
                task,
                completed=release.index,
                total=release.total,
                description=f"{release.step} {release.release + 1}",
                figures=_figures(release, latest),
            )
            for name, why in release.left_out.items():
                where = f"{release.step} {release.release}"
                shown.print(f"{name} was left out of {where}: {why}", highlight=False)
            if not shown.is_terminal:
                line = (
                    f"{release.index}/{release.total} {release.step}: {_figures(release, latest)}"
                )
                shown.print(line, highlight=False)

        return federation.train(plan, folder, advance)


def _unit(approved: Plan) -> str:
    """What every epsilon of the run is for, and what the whole run may cost at the very most."""
    if approved.public:
        return "Without noise: NOT PRIVATE."
    partners = len(approved.roster)
    most = epsilon_at_every_partner(approved.events(), approved.delta, partners)
    return (
        f"Epsilon so far, at delta {approved.delta:g}: {ADJACENCY}. A person who is a user at all "
        f"{partners} partners: at most {most:.3f} in the whole run."
    )


def _figures(release: Release, latest: dict[str, float]) -> str:
    metrics = " ".join(f"{name} {value:.3f}" for name, value in latest.items())
    epsilon = "NOT PRIVATE" if release.epsilon is None else f"epsilon {release.epsilon:.3f}"
    return f"{epsilon} {metrics}"


def print_run(run: Run) -> None:
    print_history(run.folder, run.history)
    console.print(f"Plan {run.plan_hash[:12]} is finished: {run.folder}", highlight=False)


def print_history(folder: Path, history: list[Release]) -> None:
    approved = _plan_of(folder)
    print_table(
        f"Releases (epsilon so far, at delta {approved.delta:g}: {ADJACENCY})",
        ["#", "step", "attempt", "epsilon so far", "metrics", "seconds", "left out"],
        [
            [r.index, f"{r.step} {r.release}", r.attempt,
             "NOT PRIVATE" if r.epsilon is None else f"{r.epsilon:.3f}",
             " ".join(f"{k} {v:.3f}" for k, v in r.metrics.items()),
             f"{sum(r.seconds.values()):.2f}", ", ".join(r.left_out)]
            for r in history
        ],
    )  # fmt: skip
    bound = epsilon_everywhere(approved, history)
    if bound is not None:
        console.print(
            f"A person who is a user at all {len(approved.roster)} partners: epsilon {bound:.3f} "
            f"at delta {approved.delta:g} after these releases.",
            highlight=False,
        )


def _with_bound(folder: Path, journal: dict[str, Any]) -> dict[str, Any]:
    """A journal with what an epsilon must stand beside."""
    approved = _plan_of(folder)
    history = [Release(**line) for line in journal["history"]]
    return {
        **journal,
        "adjacency": ADJACENCY,
        "delta": approved.delta,
        "epsilon_at_every_partner": epsilon_everywhere(approved, history),
    }


def _plan_of(folder: Path) -> Plan:
    return Plan.from_json((folder / "plan.json").read_text())
