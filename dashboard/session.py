"""Who is signed in, at which nodes and until when; how pages ask and how they tell of failures.

The account's key lives in this process only, with the browser's connection: nothing of it is in an
address, a log or the browser, so that a reloaded page asks to sign in again.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import streamlit as st
import structlog
from streamlit.runtime.scriptrunner import get_script_run_ctx

from coterie.owner import Owner
from dashboard.options import Options, OptionsError
from dashboard.texts import text
from network.client import LoginFailed, NodeClient, NodeRefused, NodeUnreachable, log_in
from network.envelope import BytesRefused
from network.federation import FederationError
from network.hub import HubError
from policies.approvals import OwnerKeyError
from policies.owner_policy import OwnerPolicyError

Role = Literal["owner", "scientist", "auditor"]
_SESSION, _DONE, _SEEN, _PAGES = "session", "done", "seen", "pages"
_TOLD = (
    BytesRefused, FederationError, HubError, LoginFailed, NodeRefused, NodeUnreachable,
    OptionsError, OwnerKeyError, OwnerPolicyError,
)  # fmt: skip
PATIENCE_S = 20.0
"""How long a page waits for an answer: a node that hangs must not keep the others' from sight."""
BRIEF_S, _WARY_S = 2.0, 60.0
"""How long it waits for one that has just let a page wait in vain, and for how long it does so."""
_SILENT: dict[str, float] = {}
"""Until when (monotonic) a node, by its address, is waited for briefly; it may answer before."""
UNREADABLE = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What reading an answer of another form than expected raises."""
_MARKUP = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>$~:!|#&@/.{}()"})
# Addresses become links even where every character is escaped; a word joiner prevents it.
_ADDRESS = re.compile(r":(?=//)|www(?=\.)", re.IGNORECASE)
_log = structlog.get_logger("coterie.dashboard")


@dataclass(frozen=True)
class Session:
    """One person signed in at one or several nodes.

    Attributes:
        nodes: her line to every domain that let her in, by name.
        absent: the other domains, and why she isn't signed in there.
        role: what the nodes say she is; each checks it again at every call.
        email: of her accounts.
        opened: when she signed in, UTC.
        expires: when she must sign in again, UTC.
        hub: whose directory was asked; None: this is one domain's dashboard.
        runs: folder of the runs of the machine that shows these pages; None: it has none.
    """

    nodes: Mapping[str, NodeClient]
    absent: Mapping[str, str]
    role: Role
    email: str
    opened: datetime
    expires: datetime
    hub: str | None = None
    runs: Path | None = None

    @property
    def node(self) -> NodeClient:
        """The only node, on a domain's own dashboard."""
        (node,) = self.nodes.values()
        return node

    @property
    def owner(self) -> Owner:
        """The owner's decisions at her node, without her key."""
        return Owner(self.node, None, self.email)


def sign_in(
    options: Options,
    email: str,
    passwords: Mapping[str, str],
    cards: Any = None,
    doubted: Mapping[str, str] = MappingProxyType({}),
) -> Session:
    """Sign in to every domain for which there is a password.

    Args:
        passwords: by domain; empty ones are left out.
        cards: the hub's directory by domain; None: `options.url` is the only node.
        doubted: the domains that the hub lists with keys that aren't theirs, and why.

    Raises:
        NodeUnreachable, LoginFailed: no domain let her in; this is the first one's.
    """
    given = {name: password for name, password in passwords.items() if password}
    if not email.strip() or not given:
        raise LoginFailed(text("signin.incomplete"))

    def opened(name: str) -> tuple[NodeClient, Role] | Exception:
        try:
            return _opened(options, name, email.strip(), given[name], cards)
        except (LoginFailed, NodeRefused, NodeUnreachable, BytesRefused) as error:
            return error

    # Sentences are made in this thread: others don't know the reader's language.
    pool = ThreadPoolExecutor(max_workers=len(given))
    coming = {name: pool.submit(opened, name) for name in given}
    wait(coming.values(), PATIENCE_S)
    pool.shutdown(wait=False, cancel_futures=True)
    found = {
        name: each.result() if each.done() else _too_late(name, options.url or cards[name].url)
        for name, each in coming.items()
    }
    nodes = {name: each for name, each in found.items() if not isinstance(each, Exception)}
    refused = {name: each for name, each in found.items() if isinstance(each, Exception)}
    if not nodes:
        raise next(iter(refused.values()))
    absent = {name: in_words(error) for name, error in refused.items()}
    role = next(iter(nodes.values()))[1]
    absent |= {n: text("signin.other_role", role=r) for n, (_, r) in nodes.items() if r != role}
    if cards is not None:
        if role == "owner":
            raise LoginFailed(text("signin.owner_at_hub"))
        absent |= {name: text("signin.no_account") for name in cards if name not in found}
        absent |= doubted
    now = datetime.now(UTC)
    session = Session(
        nodes={name: node for name, (node, its) in sorted(nodes.items()) if its == role},
        absent=dict(sorted(absent.items())),
        role=role,
        email=email.strip(),
        opened=now,
        expires=now + timedelta(hours=options.hours),
        hub=options.hub,
        runs=options.runs,
    )
    st.session_state[_SESSION], st.session_state[_SEEN] = session, now
    return session


def _too_late(name: str, url: str) -> NodeUnreachable:
    return NodeUnreachable(name, url, f"nothing whole within {PATIENCE_S:g} s")


def _opened(
    options: Options, name: str, email: str, password: str, cards: Any
) -> tuple[NodeClient, Role]:
    if cards is None:
        assert options.url is not None
        node = log_in(options.url, email, password, options.node_key)
    else:
        card = cards[name]
        certificate = options.certificate_of(name)
        node = log_in(card.url, email, password, card.node_key, certificate)
    role = asked(node, "account")["role"]
    if role not in get_args(Role):
        raise LoginFailed(f"{node.name} answers with a role that has no pages here.")
    return node, role


def signed_in(idle: timedelta) -> Session | None:
    """The session of this browser, or None: never signed in, over, or idle for too long."""
    session: Session | None = st.session_state.get(_SESSION)
    if session is None:
        return None
    now = datetime.now(UTC)
    if now >= session.expires or now - st.session_state[_SEEN] >= idle:
        sign_out()
        st.session_state[_DONE] = text("signin.expired")
        return None
    st.session_state[_SEEN] = now
    return session


def watch_expiry(session: Session, idle: timedelta) -> None:
    """Leave the page when the session is over, without waiting for a click."""
    now = datetime.now(UTC)
    over = min(session.expires, st.session_state.get(_SEEN, now) + idle)
    if now >= over:
        st.rerun()


def sign_out() -> None:
    """Forget everything of this session but the language."""
    forget_files()
    kept = {key: st.session_state[key] for key in ("language",) if key in st.session_state}
    st.session_state.clear()
    st.session_state.update(kept)


def forget_files() -> None:
    """Drop what this browser gave as files from memory; Streamlit keeps it until the tab closes."""
    context = get_script_run_ctx()
    if context is not None:
        context.uploaded_file_mgr.remove_session_files(context.session_id)


# --- Asking ---


def asked(node: NodeClient, method: str, timeout_s: float | None = None, **arguments: Any) -> Any:
    """What the node answers to `coterie.METHOD`, read from its JSON.

    A node that takes longer than `PATIENCE_S`, or the time given, counts as down; whoever was
    waited for in vain is waited for briefly from then on, until it answers in time or a minute is
    over, so that one node that hangs doesn't make every click wait. A longer time given holds.
    """
    began, patience = time.monotonic(), timeout_s or PATIENCE_S
    if patience <= PATIENCE_S and began < _SILENT.get(node.url, began):
        patience = min(patience, BRIEF_S)
    try:
        answer = node.read(method, timeout_s=patience, **arguments)
    except NodeUnreachable:
        if time.monotonic() - began >= patience:
            _SILENT[node.url] = time.monotonic() + _WARY_S
        raise
    _SILENT.pop(node.url, None)
    return answer


def everywhere(
    session: Session,
    ask: Callable[[NodeClient], Any],
    use: Callable[[dict[str, Any]], Any] | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """What every node answers, by domain, and why the others don't; all are asked at once.

    Args:
        ask: makes the call; it must show nothing, since it runs in a thread.
        use: what the page makes of the answers. It is tried with each node's alone, so that one
            whose answer is of another form counts as absent instead of failing the page.
    """

    def answer(node: NodeClient) -> tuple[bool, Any]:
        try:
            return True, ask(node)
        except (NodeRefused, NodeUnreachable, BytesRefused) as error:
            return False, error  # its sentence is made in the reader's thread
        except UNREADABLE:
            return False, None

    asked_for = text("shell.asking", names=", ".join(session.nodes))
    with st.spinner(plain(asked_for)), ThreadPoolExecutor(max_workers=8) as pool:
        found = dict(zip(session.nodes, pool.map(answer, session.nodes.values()), strict=True))
    answers = {name: value for name, (ok, value) in found.items() if ok}
    failed = {
        n: text("shell.unreadable") if why is None else in_words(why)
        for n, (ok, why) in found.items()
        if not ok
    }
    for name in [n for n, value in answers.items() if use and not _fits(use, {n: value})]:
        del answers[name]
        failed[name] = text("shell.unreadable")
    return answers, {**session.absent, **failed}


def _fits(use: Callable[[dict[str, Any]], Any], answer: dict[str, Any]) -> bool:
    try:
        use(answer)
    except UNREADABLE as error:
        _log.warning("unreadable answer", node=next(iter(answer)), error=type(error).__name__)
        return False
    return True


# --- Telling ---


def in_words(error: Exception) -> str:
    """An error in the reader's language, with what a node or a file's reader said of it."""
    kind = next(each.__name__ for each in _TOLD if isinstance(error, each))
    why, name = getattr(error, "why", str(error)), getattr(error, "name", "")
    return text(f"errors.{kind}", why=why, name=name)


def finish(sentence: str) -> None:
    """Draw the page afresh with this sentence on top."""
    st.session_state[_DONE] = sentence
    st.rerun()


def show_finished() -> None:
    """Show what the last action did, once."""
    sentence = st.session_state.pop(_DONE, None)
    if sentence is not None:
        st.success(plain(sentence))


@contextmanager
def telling() -> Iterator[None]:
    """Show an error as its sentence; what nobody foresaw is named, never a traceback."""
    try:
        yield
    except _TOLD as error:
        st.error(plain(in_words(error)))
    except Exception as error:
        _log.error("failed", error=type(error).__name__)
        st.error(text("shell.failed", error=type(error).__name__))


def plain(words: str) -> str:
    """Text that Streamlit shows as it is: no links, images or formatting from others' words."""
    return _ADDRESS.sub("\\g<0>\u2060", words).translate(_MARKUP)


# --- Going ---


def remember_pages(pages: Mapping[str, Any]) -> None:
    """Let `go` and `link` find this session's pages by name."""
    st.session_state[_PAGES] = dict(pages)


def go(name: str, **query: str) -> None:
    """Open another page of this role, such as `go("request", plan=plan_hash)`."""
    st.switch_page(st.session_state[_PAGES][name], query_params=query)


def link(name: str, label: str, **query: str) -> None:
    """A link to another page of this role."""
    st.page_link(st.session_state[_PAGES][name], label=label, query_params=query)
