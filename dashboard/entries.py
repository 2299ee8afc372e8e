"""The signed entries behind a figure: found by filter, page by page, each with its proof.

A proof is checked here, against the node's pinned key; the node's word alone shows nothing.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from dashboard.session import Session, asked, plain, telling
from dashboard.showing import empty, section, table
from dashboard.texts import text
from network.client import NodeClient
from policies.verify import Verdict, verify_proof

KINDS = (
    "budget", "submission", "refusal", "consent", "approval", "denial", "reservation", "charge",
    "release", "void", "closure", "objection", "owner", "rules",
)  # fmt: skip
PAGE = 50
_BEFORE, _WHERE = "entries-before", "entries-where"
_SUMMARY = 160


def draw(session: Session) -> None:
    """Draw the page."""
    st.title(text("pages.entries"))
    if not session.nodes:
        empty(text("ledgers.none"), text("ledgers.none_next"))
        return
    asked_for = dict(st.query_params)
    domain = _domain(session, asked_for)
    node = session.nodes[domain]
    with telling():
        wanted = _filter(asked_for)
        picked = _entries(node, wanted)
    with telling():
        index = picked or int(asked_for.get("index") or 0)
        _entry(node, index)


def _domain(session: Session, asked_for: Mapping[str, str]) -> str:
    names = list(session.nodes)
    first = names.index(asked_for["domain"]) if asked_for.get("domain") in names else 0
    return str(st.selectbox(text("entries.domain"), names, first))


def _filter(asked_for: Mapping[str, str]) -> dict[str, Any]:
    """What the entries must fulfil: the reader's choice, at first what the address asks for."""
    with st.expander(text("entries.filter"), expanded=not asked_for.get("index")):
        left, right = st.columns(2)
        given = [kind for kind in (asked_for.get("kind"),) if kind in KINDS]
        kinds = left.multiselect(
            text("entries.kinds"),
            KINDS,
            given,
            format_func=lambda kind: text(f"kinds.{kind}"),
            placeholder=text("entries.any"),
        )
        plan = right.text_input(text("entries.plan"), asked_for.get("plan", ""))
        population = left.text_input(text("entries.population"), asked_for.get("population", ""))
        scientist = right.text_input(text("entries.scientist"), asked_for.get("scientist", ""))
        since, until = span(asked_for.get("month", ""))
        since = left.text_input(text("entries.since"), since)
        until = right.text_input(text("entries.until"), until)
    chosen = {
        "kinds": kinds,
        "plan": plan.strip().lower(),
        "population": population.strip(),
        "scientist": scientist.strip(),
        "since": since.strip(),
        "until": until.strip(),
    }
    return {key: value for key, value in chosen.items() if value}


def span(when: str) -> tuple[str, str]:
    """From when until before when a day (2026-11-28) or a month (2026-11) lasts."""
    try:
        period = pd.Period(when, freq="M" if len(when) == 7 else "D") if when else None
    except ValueError:
        period = None
    if period is None:
        return "", ""
    after = period + 1
    return f"{period.start_time:%Y-%m-%d}", f"{after.start_time:%Y-%m-%d}"


def _entries(node: NodeClient, wanted: Mapping[str, Any]) -> int:
    """A page of entries; gives the index of the one that was selected, or 0."""
    where = json.dumps([node.name, wanted], sort_keys=True)
    if st.session_state.get(_WHERE) != where:
        st.session_state[_WHERE], st.session_state[_BEFORE] = where, [0]
    pages: list[int] = st.session_state[_BEFORE]
    page = asked(node, "ledger_page", before=pages[-1], limit=PAGE, wanted=json.dumps(wanted))
    frame = rows(page["entries"])
    shown = table(
        frame,
        "entries",
        empty_says=text("entries.none"),
        next_step=text("entries.none_next"),
        on_select="rerun",
        selection_mode="single-row",
    )
    if shown is None:
        return 0
    st.caption(text("entries.page", page=len(pages), total=f"{page['total']:,}"))
    newer, older, _ = st.columns([1, 1, 4])
    if newer.button(text("entries.newer"), disabled=len(pages) == 1, width="stretch"):
        pages.pop()
        st.rerun()
    if older.button(text("entries.older"), disabled=page["next"] is None, width="stretch"):
        pages.append(page["next"])
        st.rerun()
    selected = shown.selection.rows
    return int(page["entries"][selected[0]]["index"]) if selected else 0


def rows(entries: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each entry: number, time, kind, whose plan or population, and what it says."""
    return pd.DataFrame([_row(entry) for entry in entries])


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    body = json.loads(entry["body"])
    said = {k: v for k, v in body.items() if k not in ("time", "plan", "signature", "summary")}
    return {
        text("entries.index"): entry["index"],
        text("entries.time"): str(body.get("time", ""))[:19].replace("T", " "),
        text("entries.kind"): kind_in_words(entry["kind"]),
        text("entries.about"): str(body.get("plan", body.get("population", "")))[:12],
        text("entries.says"): json.dumps(said, ensure_ascii=False)[:_SUMMARY],
        text("entries.hash"): entry["hash"],
    }


def kind_in_words(kind: str) -> str:
    """A kind of entry in the reader's language."""
    return text(f"kinds.{kind}") if kind in KINDS else kind


def _entry(node: NodeClient, index: int) -> None:
    if index < 1:
        empty(text("entries.nothing"), text("entries.nothing_next"))
        return
    found = asked(node, "ledger_entry", index=index)
    verdict = check(found["proof"], node.node_key)
    section(text("entries.title", index=index, domain=plain(node.name)))
    if verdict.ok:
        size = found["proof"]["head"]["size"]
        st.success(plain(text("entries.proven", index=index, domain=node.name, size=size)))
    else:
        st.error(plain(verdict.text.splitlines()[0]))
    entry = found["proof"]["entry"]
    st.json(json.loads(entry["body"]))
    table(facts(found), f"entry-{node.name}-{index}")
    st.download_button(
        text("entries.download"),
        json.dumps(found["proof"], ensure_ascii=False),
        f"{node.name}-entry-{index}.json",
        "application/json",
        icon=":material/download:",
        on_click="ignore",
    )
    st.caption(text("entries.download_about"))


def check(proof: Mapping[str, Any], node_key: str) -> Verdict:
    """Whether an entry is under the head of the proof, signed by this key."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(proof, file, ensure_ascii=False)
        file.flush()
        return verify_proof(Path(file.name), node_key)


def facts(found: Mapping[str, Any]) -> pd.DataFrame:
    """What vouches for an entry: chain, head and co-signatures."""
    proof, witnesses = found["proof"], found["witnesses"]
    head, entry = proof["head"], proof["entry"]
    said = [
        (text("entries.kind"), kind_in_words(entry["kind"])),
        (text("entries.previous"), entry["previous"]),
        (text("entries.head"), text("entries.head_of", size=head["size"], root=head["root"])),
        (text("entries.signature"), head["signature"]),
        (text("entries.node_key"), proof["node_key"]),
        (text("entries.steps"), str(len(entry["path"]))),
    ]
    said += [
        (text("entries.cosigned", peer=w["witness"]),
         text("entries.cosigned_at", size=w["size"], time=w["time"][:19].replace("T", " ")))
        for w in witnesses
    ]  # fmt: skip
    if not witnesses:
        said.append((text("entries.cosigned", peer="–"), text("entries.cosigned_none")))
    return pd.DataFrame(said, columns=[text("entries.fact"), text("entries.value")])
