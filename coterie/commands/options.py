"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

ScriptPath = Annotated[Path, typer.Argument(help="Python file with plan(data, epsilon).")]
PlanHash = Annotated[
    str, typer.Argument(help="The plan's hash, or its first 6 or more characters.")
]
DatasetOption = Annotated[str, typer.Option(help="Name of the partners' data set.")]
EpsilonOption = Annotated[float, typer.Option(help="Epsilon of the whole plan; 0: no noise.")]
AccountsOption = Annotated[
    Path | None, typer.Option(help="JSON file of your accounts (default: HOME/scientist).")
]
