"""How a node's services answer: refusals in words, failures in silence, plans to their own."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import structlog
from syft.service.context import AuthedServiceContext
from syft.service.service import AbstractService
from syft.service.user.user_roles import ServiceRole
from syft.store.db.db import DBManager
from syft.types.errors import SyftException

from domains.accounts import Accounts, AccountsError
from domains.desk import Desk, DeskRefused
from domains.enclosure import EnclosureFailed
from domains.examination import ExaminationFailed
from domains.interactions import InteractionsError
from domains.participation import Participation
from domains.refusals import RoundRefused
from domains.rule_files import RulesRefused
from network.smpc.aggregation import OutOfTurn
from network.smpc.attempt import NoSuchAttempt
from network.smpc.messages import MalformedMessage, SharingRefused
from network.smpc.ring import RingError
from policies.ledger import LedgerError
from policies.plan import Plan, PlanUnreadable
from policies.sensitivity import TensorRefused

_log = structlog.get_logger("coterie.service")
REFUSALS = (
    AccountsError,
    DeskRefused,
    EnclosureFailed,
    ExaminationFailed,
    InteractionsError,
    LedgerError,
    MalformedMessage,
    NoSuchAttempt,
    OutOfTurn,
    PlanUnreadable,
    RingError,
    RoundRefused,
    RulesRefused,
    SharingRefused,
    TensorRefused,
)


def answering(method: Callable) -> Callable:
    """Turn our own refusals into public answers and everything else into a silent failure.

    Arguments of other names or kinds than the method declares are refused before it sees any.
    """
    declared = inspect.signature(method)

    @functools.wraps(method)
    def answer(self: Any, context: AuthedServiceContext, *args: Any, **kwargs: Any) -> Any:
        try:
            found = declared.bind(self, context, *args, **kwargs).arguments
            fit = all(_fits(value, declared.parameters[name]) for name, value in found.items())
        except TypeError:
            fit = False
        if not fit:
            takes = ", ".join(f"{name}: {kind}" for name, kind in _kinds(declared).items())
            raise SyftException(public_message=f"{method.__name__} takes {takes or 'nothing'}.")
        try:
            return method(self, context, *args, **kwargs)
        except REFUSALS as error:
            _log.info("refused", method=method.__name__, why=type(error).__name__)
            raise SyftException(public_message=_written(str(error))) from None
        except SyftException:
            raise
        except Exception as error:
            _log.error("failed", method=method.__name__, error=type(error).__name__)
            raise SyftException(
                public_message=f"{method.__name__} failed on the node ({type(error).__name__}); "
                "its owner finds the request in the node's log."
            ) from None

    return answer


def _kinds(declared: inspect.Signature) -> dict[str, str]:
    """What a caller gives, by name: 'str', 'int' or 'ndarray', maybe with 'None'."""
    mine = list(declared.parameters.values())[2:]
    return {each.name: inspect.formatannotation(each.annotation) for each in mine}


def _fits(value: Any, parameter: inspect.Parameter) -> bool:
    kind = parameter.annotation
    if kind is inspect.Parameter.empty:
        return True
    return isinstance(value, kind) and (type(value) is not bool or kind is bool)


def _written(text: str) -> str:
    """Text that can be sent: JSON in an argument can spell halves of characters."""
    return text.encode(errors="backslashreplace").decode()


class Answering(AbstractService):
    """A service of a node's; what decides is set by the node."""

    accounts: Accounts
    desk: Desk
    participation: Participation

    def __init__(self, store: DBManager) -> None:
        self.store = store

    def own_key(self, context: AuthedServiceContext) -> str | None:
        """The key whose plans the caller may see; None for all of them."""
        return str(context.credentials) if context.role == ServiceRole.DATA_SCIENTIST else None

    def email_of(self, context: AuthedServiceContext) -> str:
        user = context.server.services.user.stash.get_by_verify_key(
            context.server.verify_key, context.credentials
        ).unwrap()
        return str(user.email)

    def own_plan(self, context: AuthedServiceContext, plan_hash: str) -> Plan:
        plan = self.desk.plan(plan_hash, str(context.credentials))
        if plan is None:
            raise RoundRefused("You have submitted no such plan here.")
        return plan

    def require_auditor_or_owner(self, context: AuthedServiceContext) -> None:
        if context.role == ServiceRole.DATA_SCIENTIST:
            raise SyftException(public_message="The ledger is shown to owners and auditors.")
