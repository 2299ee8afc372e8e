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
from coterie.processes import AlreadyRunning, ProcessError
from domains.declaration import DeclarationError
from domains.folder import FolderError
from domains.interactions import InteractionsError
from network.client import LoginFailed, NodeRefused, NodeUnreachable
from network.federation import FederationError
from network.hub import HubError
from network.tls import TlsError
from network.training import NotApproved, RunInterrupted
from policies.approvals import OwnerKeyError
from policies.ledger import LedgerError
from policies.trace import TraceError
from recommenders.datasets import DataRefused, DataUnavailable


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

_CODES: tuple[tuple[type[Exception], ExitCode], ...] = (
    (NotApproved, ExitCode.DENIED),
    (RunInterrupted, ExitCode.INTERRUPTED),
    (NodeUnreachable, ExitCode.UNREACHABLE),
    (HubError, ExitCode.UNREACHABLE),
    (LoginFailed, ExitCode.LOGIN_FAILED),
    (AlreadyRunning, ExitCode.ALREADY_RUNNING),
    (DeclarationError, ExitCode.BAD_DATA),
    (InteractionsError, ExitCode.BAD_DATA),
    (DataRefused, ExitCode.BAD_DATA),
    (DataUnavailable, ExitCode.BAD_DATA),
    (NodeRefused, ExitCode.REFUSED),
    (LedgerError, ExitCode.REFUSED),
    (TraceError, ExitCode.USAGE),
    (FederationError, ExitCode.USAGE),
    (FolderError, ExitCode.USAGE),
    (OwnerKeyError, ExitCode.USAGE),
    (ProcessError, ExitCode.USAGE),
    (TlsError, ExitCode.USAGE),
)

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
        except tuple(kind for kind, _ in _CODES) as error:
            raise fail(str(error), code_of(error)) from None

    return run


def code_of(error: Exception) -> ExitCode:
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.UNEXPECTED)


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
