"""A run as it happens: metrics, epsilon, bytes and stragglers, drawn again every few seconds.

What the domains charged comes from their nodes; metrics and bytes from what the run wrote on the
scientist's machine, which is there if she started this dashboard herself.
"""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dashboard.journal import Record, metrics, phases, read_record, rounds, traffic
from dashboard.plans import claims, in_words, known, label, my_plans
from dashboard.session import Session, asked, everywhere, plain, telling
from dashboard.showing import (
    adjacency,
    amount,
    chart,
    counted,
    empty,
    epsilon,
    legend,
    section,
    table,
)
from dashboard.texts import text

REFRESH = timedelta(seconds=2)
_RUNNING = ("approved", "closed")


def draw(session: Session) -> None:
    """Draw the page."""
    st.title(text("pages.run"))
    plans, absent = my_plans(session)
    for name, why in absent.items():
        st.warning(plain(text("datasets.absent", domain=name, why=why)))
    runs = {n: [p for p in found if p["status"] in _RUNNING] for n, found in plans.items()}
    if not any(runs.values()):
        empty(text("run.none"), text("run.none_next"))
        return
    mine = known(runs)
    chosen = st.selectbox(
        text("run.choose"), list(mine), format_func=lambda h: label(mine[h]), key="run"
    )
    facts = mine[str(chosen)]
    st.fragment(_live, run_every=REFRESH)(session, facts)
    section(text("run.model_title"))
    st.fragment(_model, run_every=timedelta(seconds=10))(session, facts, claims(runs, str(chosen)))


def _live(session: Session, facts: Mapping[str, Any]) -> None:
    with telling():
        plan_hash = str(facts["plan_hash"])
        progress, absent = everywhere(
            session, lambda node: asked(node, "progress", plan_hash=plan_hash), domains
        )
        record = read_record(session.runs, facts, progress)
        for name, why in absent.items():
            st.warning(plain(text("datasets.absent", domain=name, why=why)))
        _figures(facts, progress, record)
        adjacency()
        frame = domains(progress)
        section(text("run.domains_title"))
        table(frame, "run-domains")
        late = stragglers(progress)
        if late:
            st.warning(plain(text("run.straggling", names=", ".join(late))))
        if record is None or not record.history:
            _no_record(session)
            return
        _charts(record)


def _no_record(session: Session) -> None:
    if session.runs is None:
        empty(text("run.no_record"), text("run.no_record_next"))
    else:
        empty(text("run.not_begun"), text("run.not_begun_next"))


def _figures(
    facts: Mapping[str, Any], progress: Mapping[str, Mapping[str, Any]], record: Record | None
) -> None:
    state, released, spent, moved = st.columns(4)
    state.metric(text("run.state"), text(f"run.{state_of(progress, record)}"))
    most = max((len(charged(each)) for each in progress.values()), default=0)
    total = record.total if record is not None and record.total else None
    done = len(record.history) if record is not None and record.history else most
    released.metric(text("run.released"), f"{done} / {total}" if total else f"{done}")
    if record is not None and record.history:
        last = record.history[-1]
        figure = text("run.no_noise") if last.epsilon is None else f"{last.epsilon:.3f}"
        spent.metric(text("run.epsilon"), figure, help=epsilon(last.epsilon, record.delta))
        if last.epsilon is not None:
            bound = amount(record.everywhere)
            spent.caption(text("run.delta", delta=f"{record.delta:g}", everywhere=bound))
        total_bytes = sum(
            sum(each.sent.values()) + sum(each.received.values()) for each in record.history
        )
        moved.metric(text("run.bytes"), amount(round(total_bytes / 1e6, 2), "MB"))
    if total:
        st.progress(min(1.0, done / total))


def state_of(progress: Mapping[str, Mapping[str, Any]], record: Record | None) -> str:
    """'ended', 'finished', 'running' or 'waiting'; what the nodes and the journal say together."""
    statuses = {str(each["status"]) for each in progress.values()}
    if record is not None and record.finished:
        return "finished"
    if statuses == {"closed"}:
        return "ended"
    return "running" if any(charged(each) for each in progress.values()) else "waiting"


def charged(progress: Mapping[str, Any]) -> set[tuple[str, int]]:
    """The releases (step, number) that a domain has charged."""
    return {(s, r) for s, r, _, state in progress["attempts"] if state == "charged"}


def domains(progress: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each domain: how far it is and what it repeated."""
    everyone = [charged(each) for each in progress.values()]
    seen = set().union(*everyone) if everyone else set()
    rows = []
    for domain, each in sorted(progress.items()):
        states = [state for *_, state in each["attempts"]]
        rows.append(
            {
                text("run.domain"): domain,
                text("run.status"): in_words(each["status"]),
                text("run.charged"): len(charged(each)),
                text("run.behind"): len(seen - charged(each)),
                text("run.repeated"): sum(1 for *_, number, _ in each["attempts"] if number > 0),
                text("run.open"): states.count("reserved"),
                text("run.void"): states.count("void"),
                text("run.reason"): each["reason"],
            }
        )
    return pd.DataFrame(rows)


def stragglers(progress: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The domains that have not charged what another has."""
    seen = set().union(*(charged(each) for each in progress.values())) if progress else set()
    return [domain for domain, each in sorted(progress.items()) if seen - charged(each)]


def _charts(record: Record) -> None:
    shown = rounds(record)
    found = metrics([record])
    left, right = st.columns(2)
    with left:
        if found.empty:
            empty(text("run.no_metrics"), text("run.no_metrics_next"))
        else:
            chart(lines(found), found, "run-metrics", text("run.metrics_title"))
        moved = traffic(record)
        chart(bars(moved, "domain", "megabytes"), moved, "run-bytes", text("run.bytes_title"))
    with right:
        if record.history[-1].epsilon is None:
            st.info(text("showing.not_private"))
        else:
            chart(spending(shown), shown, "run-epsilon", text("run.epsilon_title"))
        spent = phases(record)
        chart(bars(spent, "phase", "seconds"), spent, "run-phases", text("run.phases_title"))
    section(text("run.rounds_title"))
    table(shown.iloc[::-1], "rounds")


def lines(found: pd.DataFrame) -> alt.Chart:
    """Metrics by release."""
    release, metric, value = (text(f"run.{k}") for k in ("release", "metric", "value"))
    return (
        alt.Chart(found)
        .mark_line(point=True)
        .encode(
            x=alt.X(f"{release}:Q", title=release, axis=counted(found[release])),
            y=alt.Y(f"{value}:Q", title=None, scale=alt.Scale(zero=False)),
            color=alt.Color(f"{metric}:N", legend=legend()),
            tooltip=[release, metric, value],
        )
    )


def spending(shown: pd.DataFrame) -> alt.Chart:
    """Epsilon so far by release."""
    release, spent = text("run.release"), text("run.epsilon")
    return (
        alt.Chart(shown)
        .mark_area(interpolate="step", line=True, point=True, opacity=0.3)
        .encode(
            x=alt.X(f"{release}:Q", title=release, axis=counted(shown[release])),
            y=alt.Y(f"{spent}:Q", title=spent),
            tooltip=[release, spent],
        )
    )


def bars(found: pd.DataFrame, by: str, size: str) -> alt.Chart:
    """Stacked bars by release."""
    release, part, amount_ = text("run.release"), text(f"run.{by}"), text(f"run.{size}")
    return (
        alt.Chart(found)
        .mark_bar()
        .encode(
            x=alt.X(f"{release}:O", title=release, axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            y=alt.Y(f"{amount_}:Q", title=amount_),
            color=alt.Color(f"{part}:N", sort=None, legend=legend(5, 2)),
            tooltip=[release, part, amount_],
        )
    )


def _model(session: Session, facts: Mapping[str, Any], claimed: set[str]) -> None:
    record = read_record(session.runs, facts, claimed)
    if record is None or not record.model.exists():
        _no_record(session)
        return
    st.write(text("run.model_about" if record.finished else "run.model_unfinished"))
    st.download_button(
        text("run.download"),
        lambda: _newest(session, facts, claimed),
        f"{facts['name']}-{record.plan_hash[:12]}.safetensors",
        "application/octet-stream",
        icon=":material/download:",
        on_click="ignore",
    )
    section(text("run.notebook"))
    st.code(snippet(record.folder), language="python")


def _newest(session: Session, facts: Mapping[str, Any], claimed: set[str]) -> bytes:
    """The model as of the click: the run may have replaced the file since the page was drawn."""
    record = read_record(session.runs, facts, claimed)
    return b"" if record is None else record.model.read_bytes()


def snippet(folder: Path) -> str:
    """Python that reads a run's model in a notebook on the machine of the run."""
    return (
        "from pathlib import Path\n\n"
        "import safetensors.torch\n\n"
        f"run = Path({str(folder.absolute())!r})\n"
        'newest = max(run.glob("state-*.safetensors"))\n'
        "state = safetensors.torch.load_file(newest)\n"
        "{name: tuple(tensor.shape) for name, tensor in state.items()}\n"
    )
