"""What was measured on a named public data set, for who asks what an epsilon is good for.

Mocks carry no signal, so nothing about private data can be foreseen; these figures are from one
plan on one public data set, and are shown as that.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from dashboard.showing import legend
from dashboard.texts import text

_FILE = Path(__file__).with_name("measured.toml")
_COLOURS = ["#2f7fb5", "#8a8f98", "#c9722f", "#3f9a6b", "#a0588c", "#6b6bd6"]
_DASHES = [[1, 0], [8, 4], [3, 3], [3, 9], [10, 2], [2, 6]]
"""Told apart on light and dark; two baselines of one figure lie on each other, gaps show both."""


@dataclass(frozen=True)
class Measured:
    """One data set's figures.

    Attributes:
        name: of the public data set.
        users, items: how many it has.
        plan: the script that was run, and its settings.
        command: what repeats it.
        metric: what the figures are.
        seeds: over how many the figures are means.
        private: (epsilon, figure) at `delta`, for `policies.accounting.ADJACENCY`.
        baselines: figures without privacy, by name.
    """

    name: str
    users: int
    items: int
    plan: str
    command: str
    metric: str
    seeds: int
    delta: float
    private: tuple[tuple[float, float], ...]
    baselines: tuple[tuple[str, float], ...]

    def frame(self) -> pd.DataFrame:
        """All figures, the baselines without an epsilon."""
        rows: list[dict[str, Any]] = [
            {text("quote.model"): text("quote.measured_plan"), text("quote.epsilon"): f"{e:g}",
             text("quote.delta"): f"{self.delta:g}", self.metric: figure}
            for e, figure in self.private
        ]  # fmt: skip
        rows += [
            {text("quote.model"): text(f"quote.baseline_{name}"),
             text("quote.epsilon"): text("quote.no_epsilon"),
             text("quote.delta"): "", self.metric: figure}
            for name, figure in self.baselines
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def picture(self, epsilon: float) -> alt.LayerChart:
        """The figures by epsilon, the baselines as lines, and where the chosen epsilon stands."""
        x, model = text("quote.epsilon"), text("quote.model")
        points = pd.DataFrame(
            [{x: e, self.metric: figure, model: text("quote.measured_plan")}
             for e, figure in self.private]
        )  # fmt: skip
        lines = pd.DataFrame(
            [{self.metric: f, model: text(f"quote.baseline_{n}")} for n, f in self.baselines]
        )
        names = [text("quote.measured_plan"), *lines[model]]
        scheme = alt.Scale(domain=names, range=_COLOURS[: len(names)])
        color = alt.Color(f"{model}:N", scale=scheme, legend=legend(2, lines=True))
        dash = alt.StrokeDash(
            f"{model}:N",
            scale=alt.Scale(domain=names, range=_DASHES[: len(names)]),
            legend=legend(2, lines=True),
        )
        y = alt.Y(f"{self.metric}:Q", scale=alt.Scale(zero=False), title=self.metric)
        scale = alt.Scale(type="log", nice=False)
        rules = alt.Chart(lines).mark_rule(strokeWidth=2).encode(strokeDash=dash)
        curve = alt.Chart(points).mark_line(point=True)
        chosen = alt.Chart(pd.DataFrame({x: [epsilon]}))
        return (
            rules.encode(y=y, color=color, tooltip=[model, self.metric])
            + curve.encode(
                x=alt.X(f"{x}:Q", scale=scale), y=y, color=color, tooltip=[x, self.metric]
            )
            + chosen.mark_rule(strokeDash=[4, 4], color="#7b868e").encode(x=f"{x}:Q")
        ).properties(height=340)


@cache
def measured() -> tuple[Measured, ...]:
    """Every data set with recorded figures."""
    tables = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return tuple(_read(table) for table in tables["measured"])


def _read(table: dict[str, Any]) -> Measured:
    private = tuple((float(e), float(figure)) for e, figure in table.pop("private"))
    baselines = tuple((str(n), float(figure)) for n, figure in table.pop("baselines").items())
    return Measured(**table, private=private, baselines=baselines)
