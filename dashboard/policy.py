"""The owner's standing rules: what each line does, a form that edits them, and what would change.

A change is signed with the owner's own key, as an approval is; it applies at once, and the ledger
keeps who made it, when, why and what it changed.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dashboard.requests import status_text
from dashboard.rules import why
from dashboard.session import Session, asked, finish, plain, telling
from dashboard.showing import adjacency, download, empty, records, sentences, shortened
from dashboard.signing import ask_signer, forget_signer, signing_form
from dashboard.texts import heading, text
from dashboard.times import instant
from dashboard.told import told
from policies.amendments import changes_between, loosened, sign_amendment
from policies.owner_policy import OwnerPolicy, OwnerPolicyError

_PREVIEW_S = 300.0
"""Most that judging every open plan may take."""
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


@dataclass(frozen=True)
class Draft:
    """Other rules that were previewed.

    Attributes:
        replaces: digest of the file they were made from.
        text: of the whole new file.
        previewed: what the node says of every open plan under them.
    """

    replaces: str
    text: str
    previewed: Sequence[Mapping[str, Any]]


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
        _list(explained(rules["text"]), f"rules-{name}")
    with st.expander(text("policy.file")):
        st.code(rules["text"] or " ", language="toml")
    st.header(text("policy.change"))
    form, written = st.tabs([text("policy.as_form"), text("policy.as_text")])
    with form, telling():
        _form(session, name, rules)
    with written, telling():
        _written(session, name, rules)
    draft: Draft | None = st.session_state.get(f"draft-{name}")
    if draft is not None and draft.replaces == rules["digest"]:
        _draft(session, name, rules, draft)
    st.header(text("policy.history"))
    sentences(
        history(rules["history"]),
        f"history-{name}",
        empty_says=text("policy.no_history"),
        next_step=text("policy.no_history_next"),
    )
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
                "advises only": text("policy.advises") if name in policy.advisory else "",
                "what it does": why(name),
            }
            for name in OwnerPolicy.model_fields
        ]
    )


def _list(rules: pd.DataFrame, key: str) -> None:
    """The rules one below the other: on a phone too, each stands beside its value."""
    for rule in rules.to_dict("records"):
        by = [rule["said by"], heading("advises only") if rule["advises only"] else ""]
        said = f"{shortened(rule['value'])} ({', '.join(filter(None, by))})"
        value, what = st.columns([2, 3])
        value.markdown(f"**{plain(rule['rule'])}** = {plain(said)}")
        what.markdown(rule["what it does"])
    download(rules, key)


def with_figures(written: str, figures: Mapping[str, float | int | None]) -> str:
    """The policy's text with these figures, and every other letter of it as it was.

    None takes a setting out. What equals the default isn't added.

    Raises:
        OwnerPolicyError: the text is written so that only a person can change it.
    """
    said, changed = tomllib.loads(written), written
    expected = dict(said)
    for name, value in figures.items():
        if value == said.get(name, OwnerPolicy.model_fields[name].default):
            continue
        expected.pop(name, None)
        if value is not None:
            expected[name] = value
        changed = _with_line(changed, name, value)
    try:
        if tomllib.loads(changed) == expected:
            return changed
    except tomllib.TOMLDecodeError:
        pass
    raise OwnerPolicyError(text("policy.by_hand"))


def _with_line(written: str, name: str, value: float | int | None) -> str:
    line = rf'(?m)^([ \t]*"?{name}"?[ \t]*=[ \t]*)([^#\r\n]*?)([ \t]*(?:#[^\n]*)?)$'
    if value is None:
        return re.sub(line + r"\n?", "", written, count=1)
    if re.search(line, written):
        return re.sub(line, rf"\g<1>{value!r}\g<3>", written, count=1)
    # Before the first table: what comes after its heading belongs to it.
    end = title.start() if (title := re.search(r"(?m)^[ \t]*\[", written)) else len(written)
    above = written[:end]
    gap = "" if not above or above.endswith("\n") else "\n"
    return f"{above}{gap}{name} = {value!r}\n{written[end:]}"


def difference(before: str, after: str) -> str:
    """Two policy files as a unified diff; empty if they are the same."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=2)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++")))


def history(changes: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Every change of the rules, newest first: when, by whom, why, what, and under which key."""
    return pd.DataFrame(
        [
            {
                "when": instant(change["time"]),
                "by": change["by"] or text("policy.by_machine"),
                "what changed": _told(change["changes"]),
                "reason": change["reason"],
                "signed by key": change["owner_key"][:16],
            }
            for change in changes
        ]
    )


def _told(changes: Sequence[Sequence[str]]) -> str:
    said = [text("policy.from_to", name=name, old=old, new=new) for name, old, new in changes]
    return "; ".join(said) or text("policy.words_only")


def affected(previewed: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The open plans of which other rules would say something else."""
    return pd.DataFrame(
        [
            {
                "name": f"{each['name']} {each['plan_hash'][:8]}",
                "status": status_text(each["status"]),
                "rules broken now": ", ".join(sorted({r["rule"] for r in each["now"]})) or "–",
                "rules broken then": ", ".join(sorted({r["rule"] for r in each["then"]})) or "–",
                "what would be said": "\n".join(told(r["message"]) for r in each["then"]),
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
    if isinstance(value, bool):
        return str(value).lower()
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
    st.session_state.pop(f"draft-{name}", None)
    OwnerPolicy.parse(changed)
    with st.spinner(text("policy.previewing")):
        found = asked(
            session.node, "preview_rules", timeout_s=_PREVIEW_S, dataset=name, policy=changed
        )
    st.session_state[f"draft-{name}"] = Draft(rules["digest"], changed, found)


def _draft(session: Session, name: str, rules: Mapping[str, Any], draft: Draft) -> None:
    """What was previewed, which plans it would affect, and the signature that makes it apply."""
    st.header(text("policy.preview_title"))
    found = difference(rules["text"], draft.text)
    if not found:
        empty(text("policy.same"), text("policy.same_next"))
        return
    st.code(found, language="diff", wrap_lines=True)
    judged = affected(draft.previewed)
    records(
        judged,
        f"affected-{name}",
        empty_says=text("policy.none_affected", count=len(draft.previewed)),
    )
    st.caption(text("policy.approved_stay"))
    now, then = OwnerPolicy.parse(rules["text"]), OwnerPolicy.parse(draft.text)
    if now.second_approvers and (looser := loosened(now, then)):
        st.warning(plain(text("policy.two_persons", names=", ".join(looser))))
        return
    reason = st.text_area(text("policy.why"), max_chars=2000, key=f"why-rules-{name}")
    if not reason.strip():
        st.caption(text("deciding.reason_first"))
        return
    st.download_button(
        text("policy.download"), draft.text.encode(), "policy.toml", "application/toml",
        icon=":material/download:", on_click="ignore", type="tertiary",
    )  # fmt: skip
    with st.form(signing_form(f"sign-rules-{name}")):
        changes = changes_between(now, then)
        st.warning(plain(text("policy.confirm", changes=_told(changes), count=len(judged))))
        signer = ask_signer(
            "coterie", "rules", "sign", "policy.toml", "--domain", session.node.name,
            "--data", name, "--reason", reason.strip(),
        )  # fmt: skip
        submitted = st.form_submit_button(text("policy.write"), type="primary")
    if not submitted:
        return

    def sign(key: Ed25519PrivateKey) -> str:
        return sign_amendment(
            key,
            session.node.name,
            name,
            draft.text,
            draft.replaces,
            by=session.email,
            reason=reason.strip(),
        )

    with telling():
        session.owner.write_rules(name, draft.text, signer.signed(sign))
        forget_signer()
        del st.session_state[f"draft-{name}"]
        finish(text("policy.written", name=session.node.name))
