"""A plan as a native Syft request: what an owner's Syft client shows, approves and denies.

The same class serves both sides. On the node, applying the change records the decision; on the
client, importing this module makes `request.approve()` sign with the owner's own key.
"""

from collections.abc import Callable
from typing import Any

from syft.serde.serializable import serializable
from syft.service.context import ChangeContext
from syft.service.request.request import Change, Request
from syft.service.response import SyftSuccess
from syft.types.errors import SyftException
from syft.types.result import as_result
from syft.types.syft_object import SYFT_OBJECT_VERSION_1


@serializable()
class PlanChange(Change):
    """The decision asked for: may the plan with this hash run here?"""

    __canonical_name__ = "CoteriePlanChange"
    __version__ = SYFT_OBJECT_VERSION_1
    __repr_attrs__ = ["name", "plan_hash", "domain", "explanation"]  # noqa: RUF012

    name: str
    plan_hash: str
    domain: str
    explanation: str

    @as_result(SyftException)
    def apply(self, context: ChangeContext) -> SyftSuccess:
        signature = context.extra_kwargs.get("signature")
        reason = context.extra_kwargs.get("reason", "")
        status = _service(context).approve(
            self.plan_hash, _decider(context), signature, str(reason), self.explanation
        )
        return SyftSuccess(message=f"Plan {self.plan_hash[:12]}: {status}")

    @as_result(SyftException)
    def undo(self, context: ChangeContext) -> SyftSuccess:
        reason = str(context.extra_kwargs.get("reason", ""))
        status = _service(context).deny(self.plan_hash, _decider(context), reason, self.explanation)
        return SyftSuccess(message=f"Plan {self.plan_hash[:12]}: {status}")

    def __repr_syft_nested__(self) -> str:
        return f"Run plan {self.name} ({self.plan_hash[:12]})"


def _service(context: ChangeContext) -> Any:
    return context.server.services.coterie


def _decider(context: ChangeContext) -> str:
    user = context.server.services.user.stash.get_by_verify_key(
        context.server.verify_key, context.approving_user_credentials
    ).unwrap()
    return str(user.email)


_plain_approve = Request.approve


def sign_approvals_with(sign: Callable[[PlanChange, str], str | None]) -> None:
    """Make `request.approve()` of plans sign with the owner's key.

    Args:
        sign: takes the change and the reason and returns the owner's signed approval, or None
            where this client holds no key for that domain: the approval is then recorded as
            awaiting signature.
    """

    def approve(self: Request, *args: Any, **kwargs: Any) -> SyftSuccess:
        for change in self.changes:
            if isinstance(change, PlanChange) and "signature" not in kwargs:
                signature = sign(change, str(kwargs.get("reason", "")))
                if signature is not None:
                    kwargs["signature"] = signature
        return _plain_approve(self, *args, **kwargs)

    Request.approve = approve
