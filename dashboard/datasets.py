"""What the partners declare of their data: schema, mocks, sizes; nothing is counted from rows."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from dashboard.session import PATIENCE_S, Session, asked, everywhere, plain, telling
from dashboard.showing import adjacency, chart, empty, legend, section, table
from dashboard.texts import text
from network.client import NodeClient, NodeRefused

Cards = Mapping[str, Mapping[str, Any]]
_COMPARED = ("catalogue", "items", "interactions_per_user", "public")
_MOCK_ROWS = 20


def draw(session: Session) -> None:
    """Draw the page."""
    st.title(text("pages.datasets"))
    st.write(text("datasets.about"))
    cards, absent = everywhere(session, lambda node: asked(node, "describe"), _pictured)
    for name, why in absent.items():
        st.warning(plain(text("datasets.absent", domain=name, why=why)))
    frame = declared(cards)
    if frame.empty:
        empty(text("datasets.none"), text("datasets.none_next"))
        return
    chart(sizes(frame), frame, "declared", text("datasets.sizes"))
    adjacency()
    section(text("datasets.together"))
    table(agreement(cards), "agreement")
    name = st.selectbox(text("datasets.choose"), names(cards), key="dataset")
    domain = st.selectbox(text("datasets.choose_mock"), holders(cards, name), key="mock-domain")
    with telling():
        facts = next(f for f in cards[domain]["datasets"] if f["name"] == name)
        _mock(session.nodes[domain], facts)
    section(text("datasets.notebook"))
    st.write(text("datasets.notebook_about"))
    st.code(snippet(name), language="python")


def _pictured(cards: Cards) -> None:
    """Everything that the page makes of the cards."""
    declared(cards), agreement(cards)
    for facts in [f for card in cards.values() for f in card["datasets"]]:
        schema(facts)


def names(cards: Cards) -> list[str]:
    """The data sets that some partner declares, sorted."""
    return sorted({str(facts["name"]) for card in cards.values() for facts in card["datasets"]})


def holders(cards: Cards, name: str) -> list[str]:
    """The domains that declare a data set of this name."""
    return [d for d, card in cards.items() if any(f["name"] == name for f in card["datasets"])]


def declared(cards: Cards) -> pd.DataFrame:
    """One row for each data set of each domain, as its owner declared it."""
    rows = [
        {
            text("datasets.dataset"): facts["name"],
            text("datasets.domain"): domain,
            text("datasets.users"): facts["users"],
            text("datasets.items"): facts["items"],
            text("datasets.interactions"): facts["interactions_per_user"],
            text("datasets.population"): facts["population"],
            text("datasets.epsilon"): None if facts["public"] else facts["epsilon"],
            text("datasets.delta"): None if facts["public"] else f"{facts['delta']:g}",
            text("datasets.privacy"): text(
                "datasets.public" if facts["public"] else "datasets.private"
            ),
            text("datasets.description"): facts["description"],
        }
        for domain, card in sorted(cards.items())
        for facts in card["datasets"]
    ]
    return pd.DataFrame(rows)


def agreement(cards: Cards) -> pd.DataFrame:
    """One row for each data set: its size over all partners, and whether they agree on it."""
    return pd.DataFrame([_together(cards, name) for name in names(cards)])


def _together(cards: Cards, name: str) -> dict[str, Any]:
    found = {d: f for d, card in cards.items() for f in card["datasets"] if f["name"] == name}
    first = next(iter(found.values()))
    differing = [k for k in _COMPARED if any(f[k] != first[k] for f in found.values())]
    agreed = text("datasets.agreed") if not differing else text(
        "datasets.differs", fields=", ".join(differing)
    )  # fmt: skip
    return {
        text("datasets.dataset"): name,
        text("datasets.domains"): ", ".join(found),
        text("datasets.users"): sum(f["users"] for f in found.values()),
        text("datasets.schema_agreed"): agreed,
        text("datasets.catalogue"): first["catalogue"] if not differing else "",
    }


def sizes(frame: pd.DataFrame) -> alt.Chart:
    """Declared users by data set and domain."""
    users, domain, dataset = (text(f"datasets.{k}") for k in ("users", "domain", "dataset"))
    return (
        alt.Chart(frame)
        .mark_bar()
        .encode(
            x=alt.X(f"{users}:Q", title=users),
            y=alt.Y(f"{domain}:N", title=None),
            yOffset=alt.YOffset(f"{dataset}:N"),
            color=alt.Color(f"{dataset}:N", legend=legend(narrow=2)),
            tooltip=[dataset, domain, users],
        )
        .properties(height=60 + 50 * frame[domain].nunique())
    )


def _mock(node: NodeClient, facts: Mapping[str, Any]) -> None:
    name = str(facts["name"])
    mock = mock_of(node, name)
    schema_side, mock_side = st.columns(2)
    with schema_side:
        st.markdown(f"**{text('datasets.schema')}**")
        table(schema(facts), f"schema-{name}")
    with mock_side:
        st.markdown(f"**{text('datasets.mock')}**")
        table(mock.head(_MOCK_ROWS), f"mock-{name}")
    st.caption(text("datasets.mock_about"))


def mock_of(node: NodeClient, name: str) -> pd.DataFrame:
    """The mock of a data set: made from the declaration alone.

    Raises:
        NodeRefused: the node has no such data set, or gives this account no mock.
    """
    for dataset in node.call_syft("dataset.get_all", PATIENCE_S):
        if dataset.name == name:
            uid = dataset.asset_list[0].action_id
            return pd.DataFrame(_value(node.call_syft("action.get_mock", PATIENCE_S, uid=uid)))
    raise NodeRefused(node.name, text("datasets.no_mock", domain=node.name, name=name))


def _value(mock: Any) -> Any:
    return getattr(mock, "syft_action_data", mock)


def schema(facts: Mapping[str, Any]) -> pd.DataFrame:
    """The columns that the owner declared, and what may stand in them."""
    smallest, largest = facts["values"]
    holds = {
        "user": text("datasets.holds_user", users=f"{facts['users']:,}"),
        "item": text("datasets.holds_item", items=f"{facts['items']:,}"),
        "value": text("datasets.holds_value", smallest=f"{smallest:g}", largest=f"{largest:g}"),
        "time": text("datasets.holds_time"),
    }
    return pd.DataFrame(
        [
            {text("datasets.column"): each, text("datasets.holds"): holds.get(each, "")}
            for each in facts["columns"]
        ]
    )


def snippet(name: str) -> str:
    """Python that opens a data set in a notebook; it holds no credential."""
    return (
        "import coterie as ct\n\n"
        'fed = ct.connect("accounts.json", key="scientist.pem")\n'
        f"data = fed.data({name!r})\n"
        "data.items, data.interactions, data.users  # as declared, summed over the partners\n"
    )
