"""What a plan would cost and what its noise would leave, before anything is asked for."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import coterie as ct
from dashboard.datasets import Cards, declared
from dashboard.measured import measured
from dashboard.noise import (
    DELTA,
    SPARE_ATTEMPTS,
    VECTOR,
    Choice,
    curve,
    expected,
    picture,
    snippet,
    trial_plan,
)
from dashboard.session import Session, asked, everywhere, plain, telling
from dashboard.showing import adjacency, amount, chart, empty, epsilon, records, section
from dashboard.texts import text
from dashboard.told import told, told_offer

_EPSILONS = (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 16.0)
_ROUNDS = (1, 2, 5, 10, 12, 20, 30, 50, 100)
_CLIPS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_ANSWER = "quote-answer"


def draw(session: Session) -> None:
    """Draw the page."""
    st.title(text("pages.quote"))
    st.write(text("quote.about"))
    cards, absent = everywhere(session, lambda node: asked(node, "describe"), _usable)
    for domain, why in absent.items():
        st.warning(plain(text("datasets.absent", domain=domain, why=why)))
    nodes = {name: node for name, node in session.nodes.items() if name in cards}
    if len(nodes) < 2:
        empty(text("quote.alone"), text("quote.alone_next"))
        return
    with telling():
        answering = dataclasses.replace(session, nodes=nodes, absent={})
        federation = federation_of(answering)
        name = _dataset(federation)
        if name is None:
            empty(text("quote.no_data"), text("quote.no_data_next"))
            return
        data = federation.data(name)
        choice = _sliders(data, len(federation.nodes))
        _noise(choice)
        _measured(choice)
        _partners(answering, federation, data, choice)
        section(text("quote.notebook"))
        st.code(snippet(name, choice), language="python")


def _usable(cards: Cards) -> None:
    """Everything that a quote makes of the cards."""
    declared(cards), private_names(list(cards.values()))
    for card in cards.values():
        card["server_uid"], card["node_key"], card["owner_key"]


def federation_of(session: Session) -> ct.Federation:
    """Her nodes, to ask for quotes: these name an author and are signed by nobody, so any key will
    do, and none is kept."""
    return ct.Federation(session.nodes, Ed25519PrivateKey.generate())


def _dataset(federation: ct.Federation) -> str | None:
    names = private_names(list(federation.domains.values()))
    if not names:
        return None
    return str(st.selectbox(text("datasets.choose"), names, key="quote-dataset"))


def private_names(cards: Sequence[Mapping[str, Any]]) -> list[str]:
    """The data sets that every domain declares, none as public."""
    declared = [{f["name"] for f in card["datasets"] if not f["public"]} for card in cards]
    return sorted(set.intersection(*declared)) if declared else []


def _sliders(data: ct.DataSet, domains: int) -> Choice:
    first, second = st.columns(2)
    with first:
        asked = st.select_slider(
            text("quote.epsilon_slider", delta=f"{DELTA:g}"), _EPSILONS, 4.0, key="epsilon"
        )
        rounds = st.select_slider(text("quote.rounds_slider"), _ROUNDS, 12, key="rounds")
    with second:
        clip = st.select_slider(text("quote.clip_slider"), _CLIPS, 1.0, key="clip")
        rate = st.select_slider(text("quote.rate_slider"), _RATES, 1.0, key="rate")
    adjacency()
    return Choice(
        epsilon=float(asked),
        rounds=int(rounds),
        clip_norm=float(clip),
        sampling_rate=float(rate),
        users=data.users,
        numbers=data.items * VECTOR,
        domains=domains,
    )


def _noise(choice: Choice) -> None:
    section(text("quote.noise_title"))
    found = expected(choice)
    multiplier, noise, ratio = st.columns(3)
    multiplier.metric(text("quote.multiplier"), amount(found.noise_multiplier, text("quote.norms")))
    noise.metric(text("quote.noise_metric"), f"±{found.noise:.3g}")
    ratio.metric(text("quote.ratio_metric"), text("quote.times", ratio=f"{found.ratio:.3g}"))
    st.write(text("quote.verdict_" + verdict(found.ratio)))
    frame = curve(choice)
    chart(picture(frame, choice), frame, "noise", text("quote.noise_chart"))
    st.caption(
        text(
            "quote.noise_about",
            users=f"{choice.users:,}",
            numbers=f"{choice.numbers:,}",
            spare=SPARE_ATTEMPTS,
            delta=f"{DELTA:g}",
        )
    )


def verdict(ratio: float) -> str:
    """'clear', 'faint' or 'drowned': what one round can say at best."""
    if ratio >= 3:
        return "clear"
    return "faint" if ratio >= 0.3 else "drowned"


def _measured(choice: Choice) -> None:
    section(text("quote.measured_title"))
    st.write(text("quote.measured_about"))
    for found in measured():
        title = text("quote.measured_chart", metric=found.metric, name=found.name)
        chart(found.picture(choice.epsilon), found.frame(), f"measured-{found.name}", title)
        st.caption(
            plain(
                text(
                    "quote.measured_source",
                    users=f"{found.users:,}",
                    items=f"{found.items:,}",
                    plan=found.plan,
                    seeds=found.seeds,
                    delta=f"{found.delta:g}",
                    command=found.command,
                )
            )
        )


def _partners(
    session: Session, federation: ct.Federation, data: ct.DataSet, choice: Choice
) -> None:
    section(text("quote.partners_title"))
    st.write(text("quote.partners_about"))
    if st.button(text("quote.ask"), type="primary"):
        bound = federation.bind(trial_plan(data, choice)).to_json()
        answers, failed = everywhere(
            session, lambda node: asked(node, "quote", plan=bound), verdicts
        )
        for name, why in failed.items():
            st.warning(plain(text("datasets.absent", domain=name, why=why)))
        if not answers:
            return
        st.session_state[_ANSWER] = dataclasses.astuple(choice), data.name, answers
    kept = st.session_state.get(_ANSWER)
    if kept is None or kept[:2] != (dataclasses.astuple(choice), data.name):
        empty(text("quote.not_asked"), text("quote.not_asked_next"))
        return
    answers = kept[2]
    first = next(iter(answers.values()))
    partners = len(answers)
    st.write(
        plain(
            text(
                "quote.cost",
                cost=epsilon(first["epsilon"], first["delta"]),
                everywhere=amount(first["epsilon_at_every_partner"]),
                partners=partners,
            )
        )
    )
    records(verdicts(answers), "quote")


def verdicts(answers: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each domain: whether its rules accept the plan, and what would fit instead."""
    return pd.DataFrame([_verdict(domain, each) for domain, each in sorted(answers.items())])


def _verdict(domain: str, answer: Mapping[str, Any]) -> dict[str, str]:
    refused, left = answer["refusals"], answer["advice"]
    said = "refuses" if refused else "asks" if left else "accepts"
    budget = answer["budget"]
    return {
        text("quote.domain"): domain,
        text("quote.would"): text(f"quote.{said}"),
        text("quote.rules"): "\n".join(
            f"{r['rule']}: {told(r['message'])}" for r in [*refused, *left]
        ),
        text("quote.fits"): "\n".join(told_offer(offer["text"]) for offer in answer["offers"]),
        text("quote.remaining"): amount(budget["remaining"]),
        text("quote.delta"): f"{budget['delta']:g}",
    }
