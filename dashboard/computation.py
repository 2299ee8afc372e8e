"""What a plan computes for each user: a picture, and lines with the reason why each is safe."""

import json
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dashboard.session import plain
from dashboard.showing import chart, sentences
from dashboard.texts import text
from policies.graph import Graph
from policies.operations import ALLOWED
from policies.plan import Plan
from policies.pseudo_code import pseudo_code
from policies.rehearsal import Rehearsed, rehearse

MOST_DRAWN = 250
"""Operations that a picture shows; the text has every one of a larger graph."""
_EDGE = "#7f8c8d"


def graphs_of(plan: Plan) -> dict[str, Graph]:
    """Every graph of a plan by what it is for."""
    kept = {"memory": plan.memory, "scores": plan.scores}
    return {step.name: step.graph for step in plan.steps} | {
        name: graph for name, graph in kept.items() if graph is not None
    }


def dot_of(graph: Graph) -> str:
    """The graph in the DOT language; colours are told apart on light and dark."""
    lines = [
        "digraph {",
        'bgcolor="transparent"; rankdir="LR";',
        f'node [shape="box", style="filled,rounded", fontname="sans-serif", color="{_EDGE}"];',
        f'edge [color="{_EDGE}"];',
    ]
    user = set(graph.user)
    for spec in graph.inputs:
        fill = "#f3d9a4" if spec.name in user else "#bcd7ee"
        lines.append(_box(spec.name, f"{spec.name}\n{spec.dtype}{list(spec.shape)}", fill))
    lines += [
        _box(c.spec.name, f"{text('request.graph_constant')}\n{list(c.spec.shape)}", "#dddddd")
        for c in graph.constants
    ]
    for node in graph.nodes:
        lines.append(_box(node.name, node.op.removeprefix("aten."), "#ffffff"))
        lines += [f"{_quoted(ref)} -> {_quoted(node.name)};" for ref in node.references()]
    for name, ref in graph.outputs:
        lines.append(_box(f"output {name}", f"{name}\n{text('request.graph_leaves')}", "#bfe3d3"))
        lines.append(f"{_quoted(ref)} -> {_quoted(f'output {name}')};")
    return "\n".join([*lines, "}"])


def reasons(graph: Graph, code: list[str]) -> pd.DataFrame:
    """One row for each operation: its line of `pseudo_code`, and why the operation is allowed."""
    first = len(graph.inputs) + len(graph.constants)
    lines = code[first : first + len(graph.nodes)]
    return pd.DataFrame(
        {
            "computes": lines,
            "operation": [node.op for node in graph.nodes],
            "why it is safe": [text(f"operations.{ALLOWED[node.op]}") for node in graph.nodes],
        }
    )


def draw_computation(plan: Plan) -> None:
    """One graph of the plan at a time: picture, and readable text."""
    graphs = graphs_of(plan)
    name = st.selectbox(text("request.which_graph"), options=list(graphs), key="graph")
    graph = graphs[name]
    st.caption(text("request.graph_about"))
    if len(graph.nodes) <= MOST_DRAWN:
        with st.container(height=420, border=True):
            st.graphviz_chart(dot_of(graph), width="content")
    else:
        st.info(text("request.graph_large", count=len(graph.nodes), most=MOST_DRAWN))
    st.markdown(f"**{text('request.graph_text')}**")
    code = pseudo_code(graph)
    inputs = code[: len(graph.inputs) + len(graph.constants)]
    st.code("\n".join(inputs), language=None, wrap_lines=True)
    sentences(reasons(graph, code), f"operations-{name}")


def draw_rehearsal(plan: Plan, items: int) -> None:
    """The plan's steps on made-up users, when asked."""
    st.write(text("request.rehearsal_about"))
    key = f"rehearsal-{plan.hash}"
    if st.button(text("request.rehearse"), icon=":material/play_arrow:"):
        with st.spinner(text("request.rehearsing")):
            st.session_state[key] = rehearse(plan, items)
    for each in st.session_state.get(key, ()):
        _rehearsed(each)


def norms_of(rehearsed: Rehearsed) -> pd.DataFrame:
    """The norm of each made-up user's contribution (L2, before clipping) and its bound."""
    return pd.DataFrame(
        {
            "made-up user": range(1, len(rehearsed.norms) + 1),
            "L2 norm before clipping": rehearsed.norms,
            "clip norm": rehearsed.clip_norm,
        }
    )


def _rehearsed(each: Rehearsed) -> None:
    st.markdown(f"**{plain(each.step)}**")
    if each.problem:
        st.error(plain(each.problem))
        return
    st.write(
        plain(
            text(
                "request.rehearsed",
                outputs=", ".join(each.outputs),
                users=len(each.norms),
                part=f"{each.clipped:.0%}",
                norm=f"{each.clip_norm:g}",
            )
        )
    )
    frame = norms_of(each)
    bars = (
        alt.Chart(frame)
        .mark_bar(color="#3f7fbf")
        .encode(x=alt.X("made-up user:O"), y=alt.Y("L2 norm before clipping:Q"))
    )
    bound = alt.Chart(frame).mark_rule(color="#b4452f", strokeWidth=2).encode(y="clip norm:Q")
    drawn = alt.layer(bars, bound).properties(height=180)
    chart(drawn, frame, f"norms-{each.step}", plain(text("request.norms", step=each.step)))


def _box(name: str, label: str, fill: str) -> str:
    return f'{_quoted(name)} [label={_quoted(label)}, fillcolor="{fill}", fontcolor="#1d2530"];'


def _quoted(words: Any) -> str:
    """A DOT string: names and operations have no character that would end it."""
    return json.dumps(str(words))
