"""How a node's services answer: refusals in words, failures in silence, plans to their own."""

import functools
import inspect
from collections.abc import Callable, Mapping
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
    takes = _Arguments(inspect.signature(method))

    @functools.wraps(method)
    def answer(self: Any, context: AuthedServiceContext, *args: Any, **kwargs: Any) -> Any:
        if not takes.fit(args, kwargs):
            raise SyftException(public_message=f"{method.__name__} takes {takes}.")
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


class _Arguments:
    """What a method's callers give, by name; binding a signature took longer than its answer."""

    def __init__(self, declared: inspect.Signature) -> None:
        _self, _context, *mine = declared.parameters.values()
        self._declared = {each.name: each.annotation for each in mine}
        self._required = {each.name for each in mine if each.default is inspect.Parameter.empty}

    def __str__(self) -> str:
        """By name 'str', 'int' or 'ndarray', maybe with 'None'."""
        kinds = ((n, inspect.formatannotation(kind)) for n, kind in self._declared.items())
        return ", ".join(f"{name}: {kind}" for name, kind in kinds) or "nothing"

    def fit(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether they are all there, no others, and each of the kind declared."""
        given = {**dict(zip(self._declared, args, strict=False)), **kwargs}
        if len(given) != len(args) + len(kwargs):
            return False  # one was given twice, or more than there are
        if not self._required <= given.keys() <= self._declared.keys():
            return False
        return all(_fits(value, self._declared[name]) for name, value in given.items())


def _fits(value: Any, kind: Any) -> bool:
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
