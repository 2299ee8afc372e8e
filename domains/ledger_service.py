"""What a node answers about its ledger, to its owner and to auditors."""

import json
import math
from dataclasses import asdict
from typing import Any

from syft.serde.serializable import serializable
from syft.service.context import AuthedServiceContext
from syft.service.service import service_method
from syft.service.user.user_roles import GUEST_ROLE_LEVEL

from domains.answering import Answering, answering
from domains.desk import DeskRefused
from policies.accounting import ADJACENCY
from policies.ledger import EntryFilter

_MOST_KINDS = 64
_WIDE = 2**63


@serializable(canonical_name="CoterieLedger", version=1)
class CoterieLedger(Answering):
    """The `coterie.ledger*` methods, and the offline verifier's verdict."""

    @service_method(path="coterie.ledger", name="ledger", roles=GUEST_ROLE_LEVEL)
    @answering
    def ledger(self, context: AuthedServiceContext, after: int, limit: int) -> str:
        """Signed ledger entries, for owners and auditors."""
        self.require_auditor_or_owner(context)
        return json.dumps(self.desk.entries(index_of(after), index_of(limit)))

    @service_method(path="coterie.ledger_counts", name="ledger_counts", roles=GUEST_ROLE_LEVEL)
    @answering
    def ledger_counts(self, context: AuthedServiceContext) -> str:
        """How many entries of each kind, and plans of each status."""
        self.require_auditor_or_owner(context)
        return _json(self.desk.ledger.overview.counts())

    @service_method(path="coterie.ledger_spends", name="ledger_spends", roles=GUEST_ROLE_LEVEL)
    @answering
    def ledger_spends(self, context: AuthedServiceContext, by: str) -> str:
        """What each day, month, scientist or plan used of the budgets."""
        self.require_auditor_or_owner(context)
        spends = self.desk.ledger.overview.spends(one_of(by, "day", "month", "scientist", "plan"))
        return json.dumps({"adjacency": ADJACENCY, "by": by, "rows": [_dict(s) for s in spends]})

    @service_method(path="coterie.ledger_timeline", name="ledger_timeline", roles=GUEST_ROLE_LEVEL)
    @answering
    def ledger_timeline(self, context: AuthedServiceContext, by: str) -> str:
        """How many entries of each kind every day or month brought."""
        self.require_auditor_or_owner(context)
        return json.dumps(self.desk.ledger.overview.timeline(one_of(by, "day", "month")))

    @service_method(path="coterie.ledger_page", name="ledger_page", roles=GUEST_ROLE_LEVEL)
    @answering
    def ledger_page(
        self, context: AuthedServiceContext, before: int, limit: int, wanted: str
    ) -> str:
        """Entries newest first; `wanted` is an `EntryFilter` as JSON."""
        self.require_auditor_or_owner(context)
        page = self.desk.ledger.overview.page
        return _json(page(filter_of(wanted), index_of(before), index_of(limit)))

    @service_method(path="coterie.ledger_entry", name="ledger_entry", roles=GUEST_ROLE_LEVEL)
    @answering
    def ledger_entry(self, context: AuthedServiceContext, index: int) -> str:
        """One entry, with the proof that it is in the ledger and who co-signed a head over it."""
        self.require_auditor_or_owner(context)
        return json.dumps(self.desk.ledger_entry(index_of(index)))

    @service_method(path="coterie.ledger_heads", name="ledger_heads", roles=GUEST_ROLE_LEVEL)
    @answering
    def ledger_heads(self, context: AuthedServiceContext) -> str:
        """What this node holds of its peers' ledgers, and they of its own."""
        self.require_auditor_or_owner(context)
        return json.dumps(self.desk.ledger_heads())

    @service_method(path="coterie.ledger_cosigned", name="ledger_cosigned", roles=GUEST_ROLE_LEVEL)
    @answering
    def ledger_cosigned(self, context: AuthedServiceContext) -> str:
        """Of `ledger_heads`, the newest of each peer only, counted by the database."""
        self.require_auditor_or_owner(context)
        return json.dumps(self.desk.ledger.overview.cosigned())

    @service_method(path="coterie.ledger_runs", name="ledger_runs", roles=GUEST_ROLE_LEVEL)
    @answering
    def ledger_runs(self, context: AuthedServiceContext) -> str:
        """Every plan that was approved, and how far it came."""
        self.require_auditor_or_owner(context)
        return json.dumps([_dict(run) for run in self.desk.ledger.overview.runs()])

    @service_method(path="coterie.verify", name="verify", roles=GUEST_ROLE_LEVEL)
    @answering
    def verify(self, context: AuthedServiceContext) -> str:
        """The offline verifier's verdict on this node's ledger."""
        return json.dumps(self.desk.verdict())


def filter_of(text: str) -> EntryFilter:
    """Raises DeskRefused unless the JSON says an `EntryFilter`."""
    try:
        said = dict(json.loads(text))
        kinds = tuple(str(kind) for kind in said.pop("kinds", ())[:_MOST_KINDS])
        return EntryFilter(kinds=kinds, **{name: str(value) for name, value in said.items()})
    except (ValueError, TypeError, RecursionError) as error:
        raise DeskRefused(f"Not a filter of ledger entries: {error}") from None


def index_of(value: int) -> int:
    """Raises DeskRefused unless it is an integer that a database can hold."""
    if type(value) is not int or not -_WIDE <= value < _WIDE:
        raise DeskRefused("Expected the number of an entry, or how many.")
    return value


def one_of(text: str, *allowed: str) -> Any:
    if text not in allowed:
        raise DeskRefused(f"Expected {' or '.join(allowed)}, got '{text[:20]}'.")
    return text


def _json(value: Any) -> str:
    return json.dumps(_dict(value))


def _dict(value: Any) -> dict[str, Any]:
    """A flat record's fields; infinity, which JSON lacks, becomes None."""
    found = asdict(value)
    return {name: None if each == math.inf else each for name, each in found.items()}
