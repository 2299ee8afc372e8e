"""Coterie: partners who can't share their users' interactions train one recommender together.

    import coterie as ct

    fed = ct.connect("accounts.json", key="scientist.pem")
    plan = ct.Plan(name="mf", data=fed.data("interactions"), steps=[...], state={...})
    fed.quote(plan)
    fed.submit(plan)
    run = fed.train(plan)

Importing it also makes this process read every Syft message strictly and take answers only of
Coterie nodes, signed by their keys; it shows plans in Syft's
`client.requests`, and signs approvals made there with the owner's key, if `use_owner_key` gave one.
"""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coterie.auditor import Auditor
from domains.request import PlanChange, sign_approvals_with
from network.answers import check_syft_answers, pin_node
from network.clip_norms import AdaptiveClip
from network.federation import Account, Federation, FederationError, connect
from network.program import DataSet, Gradient, Plan, State, Sum
from network.reader import install_strict_reader
from network.tensor_runs import Tensors
from network.tensors import SMPCTensor, TensorShape
from network.tls import trust
from network.training import NotApproved, Progress, Run, RunInterrupted
from policies.approvals import load_owner_key, sign_approval
from policies.calibration import Calibration, calibrate
from policies.canonical import sha256_hex
from policies.plan import Dealer
from policies.sensitivity import TensorRefused

__all__ = [
    "Account",
    "AdaptiveClip",
    "Auditor",
    "Calibration",
    "DataSet",
    "Dealer",
    "Federation",
    "FederationError",
    "Gradient",
    "NotApproved",
    "Plan",
    "Progress",
    "Run",
    "RunInterrupted",
    "SMPCTensor",
    "State",
    "Sum",
    "TensorRefused",
    "TensorShape",
    "Tensors",
    "calibrate",
    "connect",
    "pin_node",
    "trust",
    "use_owner_key",
]

_owner_keys: dict[str, Ed25519PrivateKey] = {}


def use_owner_key(domain: str, path: Path | str, passphrase: str | None = None) -> None:
    """From now on sign this owner's approvals of plans, made through `client.requests` too.

    Raises:
        OwnerKeyError: no such file, or a wrong passphrase.
    """
    _owner_keys[domain] = load_owner_key(Path(path), passphrase)


def _sign(change: PlanChange, reason: str) -> str | None:
    key = _owner_keys.get(change.domain)
    if key is None:
        return None
    shown = sha256_hex(change.explanation.encode())
    by = f"owner of {change.domain}"
    return sign_approval(
        key, change.plan_hash, change.domain, by=by, reason=reason, explanation=shown
    )


install_strict_reader()
check_syft_answers()
sign_approvals_with(_sign)
