"""The domains of the roster on a map: up or down, version, last seen, rounds; nothing private."""

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dashboard.session import UNREADABLE, Session, asked, telling
from dashboard.showing import inked, legend, table
from dashboard.texts import text
from dashboard.times import clock, instant
from network.client import NodeClient, NodeRefused, NodeUnreachable
from network.envelope import BytesRefused
from network.hub import HubError, directory

REFRESH = timedelta(seconds=5)
_PATIENCE_S = 4.0
_SEEN = "network-seen"
_STATES = {
    "up": "#2f7556",
    "down": "#b4452f",
    "refused": "#8a6212",
    "unreadable": "#8c3b52",
    "unknown": "#59636b",
}
_SIGNS = {"up": "✓", "down": "✗", "refused": "!", "unreadable": "#", "unknown": "?"}


def draw(session: Session) -> None:
    """Draw the page."""
    st.title(text("pages.network"))
    st.write(text("network.about"))
    st.fragment(_live, run_every=REFRESH)(session)


def _live(session: Session) -> None:
    with telling():
        seen: dict[str, str] = st.session_state.setdefault(_SEEN, {})
        found = look(session)
        now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
        seen.update({name: now for name, each in found.items() if each["state"] == "up"})
        found = with_known(found, _listed(session), seen)
        up, down, unknown, newest = st.columns(4)
        states = [each["state"] for each in found.values()]
        up.metric(text("network.up"), f"{states.count('up')} / {len(states)}")
        down.metric(text("network.down"), states.count("down"))
        unknown.metric(text("network.unknown"), states.count("unknown"))
        newest.metric(text("network.looked"), clock(now))
        frame = rows(found)
        st.markdown(f"**{text('network.map')}**")
        drawn = inked(picture(frame)).properties(
            description=text("showing.described", title=text("network.map"))
        )
        st.altair_chart(drawn, width="stretch", key="chart-network")
        table(frame.dropna(axis="columns", how="all"), "network")
        st.caption(text(f"network.rounds_{session.role}"))


def look(session: Session) -> dict[str, dict[str, Any]]:
    """What every domain answers now, asked all at once: state, version, rounds, peers."""

    def ask(node: NodeClient) -> dict[str, Any]:
        try:
            card = asked(node, "describe", timeout_s=_PATIENCE_S)
            version, more = str(card["version"]), _more(session.role, node)
        except NodeUnreachable:
            return {"state": "down"}
        except (NodeRefused, BytesRefused):
            return {"state": "refused"}
        except UNREADABLE:
            return {"state": "unreadable"}
        return {"state": "up", "version": version, "node_key": node.node_key, **more}

    with ThreadPoolExecutor(max_workers=8) as pool:
        found = dict(zip(session.nodes, pool.map(ask, session.nodes.values()), strict=True))
    absent = {n: {"state": "unknown", "why": why} for n, why in session.absent.items()}
    return {**absent, **found}


def _more(role: str, node: NodeClient) -> dict[str, Any]:
    """Rounds and peers, as far as this role may know them."""
    if role == "scientist":
        plans = asked(node, "plans", timeout_s=_PATIENCE_S)
        return {"rounds": None, "plans": len(plans), "peers": []}
    counts = asked(node, "ledger_counts", timeout_s=_PATIENCE_S)
    cosigned = asked(node, "ledger_cosigned", timeout_s=_PATIENCE_S)
    return {
        "rounds": counts["kinds"].get("release", 0),
        "plans": sum(counts["plans"].values()),
        "peers": [{"domain": str(h["domain"]), "time": str(h["time"])} for h in cosigned["held"]],
    }


def _listed(session: Session) -> Mapping[str, str]:
    """By domain, when it announced itself to the hub; empty without a hub that answers."""
    if session.hub is None:
        return {}
    try:
        cards = directory(session.hub)
    except HubError:
        return {}
    return {n: f"{datetime.fromtimestamp(c.time, UTC):%Y-%m-%d %H:%M:%S}" for n, c in cards.items()}


def with_known(
    found: Mapping[str, Mapping[str, Any]], listed: Mapping[str, str], seen: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Every domain that anybody names, with when it was last seen and by whom."""
    witnessed: dict[str, str] = {}
    for each in found.values():
        for peer in each.get("peers", ()):
            time = peer["time"][:19].replace("T", " ")
            witnessed[peer["domain"]] = max(time, witnessed.get(peer["domain"], ""))
    everyone = sorted({*found, *listed, *witnessed})
    known = {}
    for name in everyone:
        last = max(
            (seen.get(name, ""), "here"),
            (witnessed.get(name, ""), "peer"),
            (listed.get(name, ""), "hub"),
        )
        known[name] = {
            "state": "unknown", **found.get(name, {}), "last": last[0], "by": last[1]
        }  # fmt: skip
    return known


def rows(found: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each domain of the map."""
    return pd.DataFrame(
        [
            {
                text("network.domain"): name,
                text("network.state"): text(f"network.{each['state']}"),
                text("network.version"): each.get("version", ""),
                text("network.last"): instant(each["last"]),
                text("network.seen_by"): text(f"network.by_{each['by']}") if each["last"] else "",
                text("network.rounds"): each.get("rounds"),
                text("network.plans"): each.get("plans"),
                text("network.key"): each.get("node_key"),
                text("network.why"): each.get("why", ""),
            }
            for name, each in found.items()
        ]
    )


def picture(frame: pd.DataFrame) -> alt.LayerChart:
    """The domains in a circle, each joined to all others, since every round is between all."""
    domain, state = text("network.domain"), text("network.state")
    places = {
        name: (math.sin(2 * math.pi * n / len(frame)), math.cos(2 * math.pi * n / len(frame)))
        for n, name in enumerate(frame[domain])
    }
    # Only what seldom changes is drawn: a chart whose data differ is built up anew, and flickers.
    drawn = frame[[domain, state, text("network.version")]]
    signs = {text(f"network.{each}"): sign for each, sign in _SIGNS.items()}
    points = drawn.assign(
        x=[places[n][0] for n in frame[domain]],
        y=[places[n][1] for n in frame[domain]],
        sign=[signs[s] for s in frame[state]],
    )
    up = list(frame[domain][frame[state] == text("network.up")])
    pairs = [(a, b) for i, a in enumerate(up) for b in up[i + 1 :]]
    lines = pd.DataFrame(
        [(*places[a], *places[b]) for a, b in pairs], columns=["x", "y", "x2", "y2"]
    )
    flat = alt.Axis(labels=False, ticks=False, grid=False, domain=False, title=None)
    scale = alt.Scale(domain=[-1.6, 1.6])
    x, y = alt.X("x:Q", axis=flat, scale=scale), alt.Y("y:Q", axis=flat, scale=scale)
    colours = alt.Scale(
        domain=[text(f"network.{each}") for each in _STATES], range=list(_STATES.values())
    )
    edges = (
        alt.Chart(lines)
        .mark_rule(color="#9aa5ad", opacity=0.6)
        .encode(x=x, y=y, x2="x2:Q", y2="y2:Q")
    )
    base = alt.Chart(points).encode(x=x, y=y, tooltip=list(drawn.columns))
    nodes = base.mark_circle(size=1400, opacity=1).encode(
        color=alt.Color(f"{state}:N", scale=colours, legend=legend(5, 2))
    )
    marks = base.mark_text(color="white", fontSize=18, fontWeight="bold").encode(
        text=alt.Text("sign:N")
    )
    names = base.mark_text(dy=34, fontSize=14, fontWeight="bold", color="#7b868e").encode(
        text=f"{domain}:N"
    )
    return (edges + nodes + marks + names).properties(height=380)
