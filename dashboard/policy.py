"""The owner's standing rules: what each line does, a form that edits them, and what would change.

The file lies on the node. It is written as a whole, only if nobody changed it since it was looked
at, and applies from the node's next start on. Approvals stay signed by the owner's key whatever
the file says.
"""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st
import tomli_w

from dashboard.rules import why
from dashboard.session import Session, asked, finish, plain, telling
from dashboard.showing import adjacency, empty, table
from dashboard.texts import text
from policies.owner_policy import OwnerPolicy

FIGURES: tuple[tuple[str, type], ...] = (
    ("epsilon", float),
    ("delta", float),
    ("max_epsilon_per_plan", float),
    ("max_epsilon_per_scientist", float),
    ("max_epsilon_per_dataset", float),
    ("max_epsilon_per_period", float),
    ("period_days", int),
    ("min_users", int),
    ("max_releases", int),
    ("min_noise_multiplier", float),
    ("max_approval_days", int),
)
"""Settings that the form asks for as figures; lists and office hours are edited as text."""


def draw(session: Session) -> None:
    """Draw the page."""
    st.title(text("pages.policy"))
    names = [each["name"] for each in asked(session.node, "describe")["datasets"]]
    if not names:
        empty(text("budgets.none"), text("budgets.none_next"))
        return
    name = st.selectbox(text("policy.which"), options=names)
    rules = asked(session.node, "rules", dataset=name)
    if not rules["applied"]:
        st.warning(plain(rules["problem"] or text("policy.restart", name=session.node.name)))
    st.header(text("policy.now"))
    with telling():
        table(explained(rules["text"]), f"rules-{name}")
    with st.expander(text("policy.file")):
        st.code(rules["text"] or " ", language="toml")
    st.header(text("policy.change"))
    form, written = st.tabs([text("policy.as_form"), text("policy.as_text")])
    with form, telling():
        _form(session, name, rules)
    with written, telling():
        _written(session, name, rules)
    _pending(session, name, rules)
    adjacency()


def explained(written: str) -> pd.DataFrame:
    """Every rule: its value, whether the file says it, and what it does."""
    said = tomllib.loads(written)
    policy = OwnerPolicy.parse(written)
    return pd.DataFrame(
        [
            {
                "rule": name,
                "value": _shown(getattr(policy, name)),
                "said by": text("policy.by_file" if name in said else "policy.by_default"),
                "advises only": name in policy.advisory,
                "what it does": why(name),
            }
            for name in OwnerPolicy.model_fields
        ]
    )


def with_figures(written: str, figures: Mapping[str, float | int | None]) -> str:
    """The policy's text with these figures; None and what equals the default is left out.

    Comments of the file aren't kept.
    """
    said = tomllib.loads(written)
    for name, value in figures.items():
        default = OwnerPolicy.model_fields[name].default
        if value is None or (value == default and name not in said):
            said.pop(name, None)
        else:
            said[name] = value
    return tomli_w.dumps(said)


def affected(previewed: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The open plans of which other rules would say something else."""
    return pd.DataFrame(
        [
            {
                "name": f"{each['name']} {each['plan_hash'][:8]}",
                "status": each["status"],
                "rules broken now": ", ".join(sorted({r["rule"] for r in each["now"]})) or "–",
                "rules broken then": ", ".join(sorted({r["rule"] for r in each["then"]})) or "–",
                "what would be said": "\n".join(r["message"] for r in each["then"]),
            }
            for each in previewed
            if _rules(each["now"]) != _rules(each["then"])
        ]
    )


def _rules(broken: Sequence[Mapping[str, str]]) -> set[str]:
    return {each["rule"] for each in broken}


def _shown(value: Any) -> str:
    if value is None:
        return text("showing.unlimited")
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _form(session: Session, name: str, rules: Mapping[str, Any]) -> None:
    policy = OwnerPolicy.parse(rules["text"])
    with st.form(f"figures-{name}"):
        columns = st.columns(3)
        figures = {
            setting: columns[number % 3].number_input(
                setting,
                value=getattr(policy, setting),
                min_value=kind(0),
                step=1 if kind is int else None,
                format="%d" if kind is int else "%g",
                placeholder=text("showing.unlimited"),
                help=why(setting),
                key=f"{name}-{setting}-{rules['digest'][:8]}",
            )
            for number, (setting, kind) in enumerate(FIGURES)
        }
        submitted = st.form_submit_button(text("policy.preview"))
    if submitted:
        _preview(session, name, rules, with_figures(rules["text"], figures))


def _written(session: Session, name: str, rules: Mapping[str, Any]) -> None:
    with st.form(f"text-{name}"):
        changed = st.text_area(
            text("policy.file"),
            rules["text"],
            height=220,
            max_chars=100_000,
            key=f"{name}-text-{rules['digest'][:8]}",
        )
        submitted = st.form_submit_button(text("policy.preview"))
    if submitted:
        _preview(session, name, rules, changed)


def _preview(session: Session, name: str, rules: Mapping[str, Any], changed: str) -> None:
    """Let the node check the text and say what it would mean; it stays until it is written."""
    OwnerPolicy.parse(changed)
    found = asked(session.node, "preview_rules", dataset=name, policy=changed)
    st.session_state[f"preview-{name}"] = (rules["digest"], changed, found)


def _pending(session: Session, name: str, rules: Mapping[str, Any]) -> None:
    """The previewed text, which plans it would affect, and the button that writes it."""
    digest, changed, found = st.session_state.get(f"preview-{name}", ("", "", ()))
    if digest != rules["digest"]:
        return
    st.header(text("policy.preview_title"))
    st.code(changed or " ", language="toml")
    table(
        affected(found),
        f"affected-{name}",
        empty_says=text("policy.none_affected", count=len(found)),
    )
    st.caption(text("policy.approved_stay"))
    if st.button(text("policy.write"), type="primary"):
        with telling():
            session.node.call("write_rules", dataset=name, policy=changed, replaces=digest)
            del st.session_state[f"preview-{name}"]
            finish(text("policy.written", name=session.node.name))
