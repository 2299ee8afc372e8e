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
Syft and PyTorch themselves are imported when a name is first used that needs them.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from network.guard import guard_syft

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from coterie.auditor import Auditor
    from domains.request import PlanChange
    from network.answers import pin_node
    from network.client import LoginFailed, NodeRefused, NodeUnreachable
    from network.clip_norms import AdaptiveClip
    from network.dealer import DealerError
    from network.federation import Account, Federation, FederationError, connect
    from network.program import DataSet, Gradient, Plan, State, Sum
    from network.tensor_runs import Tensors
    from network.tensors import SMPCTensor, TensorShape
    from network.tls import trust
    from network.training import NotApproved, Progress, Run, RunInterrupted
    from policies.calibration import Calibration, calibrate
    from policies.plan import Dealer
    from policies.sensitivity import TensorRefused

__all__ = [
    "Account",
    "AdaptiveClip",
    "Auditor",
    "Calibration",
    "DataSet",
    "Dealer",
    "DealerError",
    "Federation",
    "FederationError",
    "Gradient",
    "LoginFailed",
    "NodeRefused",
    "NodeUnreachable",
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

_PLACES = {
    "coterie.auditor": "Auditor",
    "network.answers": "pin_node",
    "network.client": "LoginFailed NodeRefused NodeUnreachable",
    "network.clip_norms": "AdaptiveClip",
    "network.dealer": "DealerError",
    "network.federation": "Account Federation FederationError connect",
    "network.program": "DataSet Gradient Plan State Sum",
    "network.tensor_runs": "Tensors",
    "network.tensors": "SMPCTensor TensorShape",
    "network.tls": "trust",
    "network.training": "NotApproved Progress Run RunInterrupted",
    "policies.calibration": "Calibration calibrate",
    "policies.plan": "Dealer",
    "policies.sensitivity": "TensorRefused",
}
_HOMES = {name: module for module, names in _PLACES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """A public name, from the module that has it (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'coterie' has no attribute '{name}'")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


_owner_keys: "dict[str, Ed25519PrivateKey]" = {}


def use_owner_key(domain: str, path: Path | str, passphrase: str | None = None) -> None:
    """From now on sign this owner's approvals of plans, made through `client.requests` too.

    Raises:
        OwnerKeyError: no such file, or a wrong passphrase.
    """
    from domains.request import sign_approvals_with
    from policies.approvals import load_owner_key

    _owner_keys[domain] = load_owner_key(Path(path), passphrase)
    sign_approvals_with(_sign)


def _sign(change: "PlanChange", reason: str) -> str | None:
    from policies.approvals import sign_approval
    from policies.canonical import sha256_hex

    key = _owner_keys.get(change.domain)
    if key is None:
        return None
    shown = sha256_hex(change.explanation.encode())
    by = f"owner of {change.domain}"
    return sign_approval(
        key, change.plan_hash, change.domain, by=by, reason=reason, explanation=shown
    )


def _know_plans() -> None:
    """Syft's clients read requests that hold plans only once their type is declared."""
    import_module("domains.request")


guard_syft(_know_plans)
