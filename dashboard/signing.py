"""An owner's key for one signature: asked for, read from bytes, used once, kept nowhere.

What she gave stays in its form until it served, so that nobody types twice after a mistake, or when
a click was faster than the file; then it is dropped with the form.
"""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import streamlit as st
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from coterie.owner import Owner
from dashboard.session import forget_files
from dashboard.texts import text
from network.client import NodeClient, NodeRefused
from policies.approvals import OwnerKeyError

_SERVED = "signatures"


@dataclass(frozen=True)
class Signer:
    """What the owner gave to sign with: her key, or what she signed elsewhere."""

    pem: bytes | None
    passphrase: str
    signature: str

    def signed(self, sign: Callable[[Ed25519PrivateKey], str]) -> str:
        """The signature made elsewhere, else the one that `sign` makes with the key.

        Raises:
            OwnerKeyError: neither was given, or the key can't be opened.
        """
        if self.signature.strip():
            return self.signature.strip()
        if self.pem is None:
            raise OwnerKeyError(text("deciding.key_missing"))
        return sign(read_key(self.pem, self.passphrase))


def signing_form(what: str) -> str:
    """The name of the form that asks for the signature of `what`: another one after each."""
    return f"{what}-{st.session_state.get(_SERVED, 0)}"


def forget_signer() -> None:
    """Drop the key and the passphrase, which have served."""
    st.session_state[_SERVED] = st.session_state.get(_SERVED, 0) + 1
    forget_files()


def ask_signer(*command: str) -> Signer:
    """Fields for the key, or for a signature that `command` makes where the key lies."""
    file = st.file_uploader(text("deciding.key"), type=["pem"])
    passphrase = st.text_input(text("deciding.passphrase"), type="password", autocomplete="off")
    st.markdown(text("deciding.or"))
    st.code(shell(*command), language="shell", wrap_lines=True)
    signature = st.text_input(text("deciding.signature"), autocomplete="off")
    return Signer(None if file is None else file.getvalue(), passphrase, signature)


def shell(*command: str) -> str:
    """A command as one pastes it: no word of another's becomes a command of its own."""
    return shlex.join(command)


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


def approve_with_signature(owner: Owner, plan_hash: str, signature: str) -> str:
    """Approve with what `coterie requests sign` printed; gives the status.

    Raises:
        NodeRefused: no such request, or the signature isn't this owner's.
    """
    uid = _request_of(owner.node, plan_hash)
    owner.node.call_syft("request.apply", uid=uid, signature=signature)
    return str(owner.show(plan_hash)["status"])


def _request_of(node: NodeClient, plan_hash: str) -> Any:
    for request in node.call_syft("request.get_all"):
        if any(getattr(change, "plan_hash", None) == plan_hash for change in request.changes):
            return request.id
    raise NodeRefused(node.name, f"{node.name} has no request for plan {plan_hash[:12]}.")
