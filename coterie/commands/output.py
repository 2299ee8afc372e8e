"""How commands print: tables for people, JSON where asked, errors with an exit code."""

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from coterie.exit_codes import ExitCode
from coterie.home import Home


class _Visible(Console):
    """A terminal that shows others' words as text: they can't colour, hide or move anything."""

    def print(self, *objects: Any, **more: Any) -> None:
        shown = (visible(each) if isinstance(each, str) else each for each in objects)
        super().print(*shown, **more)


def visible(text: str) -> str:
    """The text with whatever a terminal would act on, or not show, spelt out."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


console = _Visible(markup=False)
errors = _Visible(markup=False, stderr=True)

_CODES = {
    "network.training.NotApproved": ExitCode.DENIED,
    "network.journal.RunInterrupted": ExitCode.INTERRUPTED,
    "network.client.NodeUnreachable": ExitCode.UNREACHABLE,
    "network.hub.HubError": ExitCode.UNREACHABLE,
    "network.client.LoginFailed": ExitCode.LOGIN_FAILED,
    "coterie.processes.AlreadyRunning": ExitCode.ALREADY_RUNNING,
    "domains.declaration.DeclarationError": ExitCode.BAD_DATA,
    "domains.interactions.InteractionsError": ExitCode.BAD_DATA,
    "recommenders.datasets.DataRefused": ExitCode.BAD_DATA,
    "recommenders.datasets.DataUnavailable": ExitCode.BAD_DATA,
    "network.client.NodeRefused": ExitCode.REFUSED,
    "policies.ledger.errors.LedgerError": ExitCode.REFUSED,
    "policies.remedies.TraceError": ExitCode.USAGE,
    "network.federation.FederationError": ExitCode.USAGE,
    "domains.folder.FolderError": ExitCode.USAGE,
    "policies.approvals.OwnerKeyError": ExitCode.USAGE,
    "coterie.processes.ProcessError": ExitCode.USAGE,
    "network.tls.TlsError": ExitCode.USAGE,
}
"""By the error's name, so that no command waits for modules that can't have raised it. The first of
an error's classes, from itself upwards, counts."""

Name = Annotated[str, typer.Argument(help="The domain's name, e.g. north.")]
HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of domains, owners and runs (default: ~/.coterie)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def home_of(path: Path | None) -> Home:
    return Home(path.resolve()) if path is not None else Home.default()


def told(command: Callable) -> Callable:
    """Let a command end with its error's sentence and exit code instead of a traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except Exception as error:
            code = code_of(error)
            if code is ExitCode.UNEXPECTED:
                raise
            raise fail(str(error), code) from None

    return run


def code_of(error: Exception) -> ExitCode:
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    return next((_CODES[name] for name in names if name in _CODES), ExitCode.UNEXPECTED)


def fail(message: str, code: ExitCode) -> typer.Exit:
    errors.print(message, markup=False, highlight=False, soft_wrap=True, style="red")
    return typer.Exit(code)


def print_json(value: Any) -> None:
    """Plain JSON on standard output, nothing else; an infinite epsilon is null."""
    typer.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(visible(str(cell)) for cell in row))
    console.print(table)
