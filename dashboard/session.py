"""The signed-in owner behind the page, and her key: read from bytes, used once, kept nowhere."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import streamlit as st
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from coterie.owner import Owner
from network.client import LoginFailed, NodeClient, NodeRefused, NodeUnreachable, log_in
from network.envelope import BytesRefused
from policies.approvals import OwnerKeyError

_OWNER, _DONE = "owner", "done"
_TOLD = (BytesRefused, LoginFailed, NodeRefused, NodeUnreachable, OwnerKeyError)
_MARKUP = str.maketrans({character: f"\\{character}" for character in "\\`*_[]<>$~:!|#&@/."})
_log = structlog.get_logger("coterie.dashboard")


def signed_in() -> Owner | None:
    """The owner of this browser session, without her key."""
    return st.session_state.get(_OWNER)


def sign_in(url: str, email: str, password: str, node_key: str | None) -> None:
    """Open a session with the node; only the account's line to it is remembered.

    Raises:
        NodeUnreachable, LoginFailed.
    """
    st.session_state[_OWNER] = Owner(log_in(url, email, password, node_key), None)


def sign_out() -> None:
    """Forget everything of this session."""
    st.session_state.clear()


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
        st.error(plain(str(error)))
    except Exception as error:
        _log.error("failed", error=type(error).__name__)
        st.error(f"The page failed ({type(error).__name__}). Reload it; if that doesn't help, "
                 "use the coterie command instead.")  # fmt: skip


def plain(text: str) -> str:
    """Text that Streamlit shows as it is: no links, images or formatting from others' words."""
    return text.translate(_MARKUP)


def read_key(pem: bytes, passphrase: str) -> Ed25519PrivateKey:
    """The owner's key from the bytes of her file.

    Raises:
        OwnerKeyError: a wrong or missing passphrase, or not an Ed25519 key in PEM.
    """
    try:
        key = load_pem_private_key(pem, passphrase.encode() or None)
    except (ValueError, TypeError):
        raise OwnerKeyError(
            "The key can't be opened: wrong or missing passphrase, or not a PEM key. "
            "Choose the owner.pem that was made with this domain."
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise OwnerKeyError("The file holds another kind of key; expected Ed25519.")
    return key


def approve_with_key(owner: Owner, plan_hash: str, reason: str, key: Ed25519PrivateKey) -> str:
    """Approve and sign in one go; the key lives as long as this call."""
    return Owner(owner.node, key).approve(plan_hash, reason)


def approve_with_signature(owner: Owner, plan_hash: str, reason: str, signature: str) -> str:
    """Approve with a signature that was made elsewhere, 128 hex digits.

    Raises:
        NodeRefused: no such request, or the signature isn't this owner's.
    """
    uid = _request_of(owner.node, plan_hash)
    owner.node.call_syft("request.apply", uid=uid, reason=reason, signature=signature)
    return str(owner.show(plan_hash)["status"])


def asked(node: NodeClient, method: str, **arguments: Any) -> Any:
    """What the node answers to `coterie.METHOD`, read from its JSON."""
    return json.loads(node.call(method, **arguments))


def _request_of(node: NodeClient, plan_hash: str) -> Any:
    for request in node.call_syft("request.get_all"):
        if any(getattr(change, "plan_hash", None) == plan_hash for change in request.changes):
            return request.id
    raise NodeRefused(node.name, f"{node.name} has no request for plan {plan_hash[:12]}.")
