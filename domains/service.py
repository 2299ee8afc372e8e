"""What a Coterie node answers, as a native Syft service: plans, decisions, rounds, ledger.

Every method is thin: it reads strictly, asks the room that decides, and answers JSON text or an
integer array. Scientists see their own plans; auditors (Syft guests with an account) see the
ledger; owners see and decide everything on their node.
"""

import functools
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import structlog
from syft.serde.serializable import serializable
from syft.service.context import AuthedServiceContext
from syft.service.request.request import SubmitRequest
from syft.service.service import AbstractService, service_method
from syft.service.user.user_roles import (
    DATA_OWNER_ROLE_LEVEL,
    DATA_SCIENTIST_ROLE_LEVEL,
    GUEST_ROLE_LEVEL,
    ServiceRole,
)
from syft.store.db.db import DBManager
from syft.types.errors import SyftException

from domains.accounts import Accounts, AccountsError
from domains.desk import Desk, DeskRefused
from domains.enclosure import EnclosureFailed
from domains.interactions import InteractionsError
from domains.launcher import warm_up
from domains.participation import Participation, RoundRefused
from domains.products import multiply
from domains.request import PlanChange
from domains.rules import RulesRefused
from domains.wire import WIRES
from network.smpc.aggregation import OutOfTurn
from network.smpc.agreement import agreement_of
from network.smpc.ckks.messages import read_residues
from network.smpc.messages import PART_BYTES, MalformedMessage, Receipt, SharingRefused
from network.smpc.ring import RingError
from network.smpc.sharing import TensorKey
from network.smpc.tensors import Operation, read_matrix
from policies.accounting import ADJACENCY
from policies.ledger import EntryFilter, LedgerError
from policies.ledger.heads import Cosignature
from policies.plan import Plan, PlanUnreadable
from policies.sensitivity import TensorRefused

_log = structlog.get_logger("coterie.service")
_REFUSALS = (
    AccountsError,
    DeskRefused,
    EnclosureFailed,
    InteractionsError,
    LedgerError,
    MalformedMessage,
    OutOfTurn,
    PlanUnreadable,
    RingError,
    RoundRefused,
    RulesRefused,
    SharingRefused,
    TensorRefused,
)


def _answering(method: Callable) -> Callable:
    """Turn our own refusals into public answers and everything else into a silent failure."""

    @functools.wraps(method)
    def answer(self: Any, context: AuthedServiceContext, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, context, *args, **kwargs)
        except _REFUSALS as error:
            _log.info("refused", method=method.__name__, why=type(error).__name__)
            raise SyftException(public_message=str(error)) from None
        except SyftException:
            raise
        except Exception as error:
            _log.error("failed", method=method.__name__, error=type(error).__name__)
            raise SyftException(
                public_message=f"{method.__name__} failed on the node ({type(error).__name__}); "
                "its owner finds the request in the node's log."
            ) from None

    return answer


@serializable(canonical_name="CoterieService", version=1)
class CoterieService(AbstractService):
    """The `coterie.*` methods of a node; what decides is set by the node."""

    accounts: Accounts
    desk: Desk
    participation: Participation

    def __init__(self, store: DBManager) -> None:
        self.store = store

    @service_method(path="coterie.describe", name="describe", roles=GUEST_ROLE_LEVEL)
    @_answering
    def describe(self, context: AuthedServiceContext) -> str:
        """Who this domain is and which data sets it declares. Nothing is computed from rows."""
        return json.dumps({**self.desk.card(), "version": version("coterie")})

    @service_method(path="coterie.account", name="account", roles=GUEST_ROLE_LEVEL)
    @_answering
    def account(self, context: AuthedServiceContext) -> str:
        """The caller's own account: email, role (owner, scientist or auditor), until when."""
        term = self.accounts.term(str(context.credentials))
        return json.dumps(
            {
                "email": self._email(context),
                "role": role_name(context.role),
                "until": None if term is None else term.until,
            }
        )

    @service_method(path="coterie.quote", name="quote", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @_answering
    def quote(self, context: AuthedServiceContext, plan: str) -> str:
        """What this domain would say to a plan: its cost, and every rule that refuses it."""
        return json.dumps(self.desk.quote(Plan.from_json(plan), str(context.credentials)))

    @service_method(path="coterie.submit", name="submit", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @_answering
    def submit(self, context: AuthedServiceContext, plan: str, signature: str) -> str:
        """Admit a plan and put it before the owner as a native Syft request."""
        parsed = Plan.from_json(plan)
        answer = self.desk.submit(parsed, str(context.credentials), signature)
        warm_up()
        if answer["status"] == "pending" and answer["new"]:
            change = PlanChange(
                name=parsed.name,
                plan_hash=parsed.hash,
                domain=self.desk.name,
                explanation=self.desk.explain(parsed),
            )
            context.server.services.request.submit(
                context, SubmitRequest(changes=[change]), reason=f"Plan {parsed.name}"
            )
        return json.dumps(answer)

    @service_method(path="coterie.plans", name="plans", roles=GUEST_ROLE_LEVEL)
    @_answering
    def plans(self, context: AuthedServiceContext) -> str:
        """Plans and where their approval stands; a scientist gets her own."""
        return json.dumps(self.desk.plans(self._own_key(context)))

    @service_method(path="coterie.plan", name="plan", roles=GUEST_ROLE_LEVEL)
    @_answering
    def plan(self, context: AuthedServiceContext, plan_hash: str) -> str:
        """One plan, by its hash or how it starts: JSON, explanation, status, signed approval."""
        return json.dumps(self.desk.show(plan_hash, self._own_key(context)))

    @service_method(path="coterie.weigh", name="weigh", roles=DATA_OWNER_ROLE_LEVEL)
    @_answering
    def weigh(self, context: AuthedServiceContext, plan_hash: str) -> str:
        """What the owner weighs of one plan: limits with and without it, rules, who agreed."""
        return json.dumps(self.desk.weigh(plan_hash))

    @service_method(path="coterie.tell", name="tell", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @_answering
    def tell(self, context: AuthedServiceContext, plan_hash: str, approvals: str) -> str:
        """Its scientist passes on what other owners decided: JSON, by domain (`domains.told`)."""
        self.desk.tell(self._own_plan(context, plan_hash), _json_object(approvals))
        return "told"

    @service_method(path="coterie.rules", name="rules", roles=DATA_OWNER_ROLE_LEVEL)
    @_answering
    def rules(self, context: AuthedServiceContext, dataset: str) -> str:
        """A data set's policy file, whether the node applies it, and who changed it when."""
        return json.dumps(self.desk.rules(dataset))

    @service_method(path="coterie.preview_rules", name="preview_rules", roles=DATA_OWNER_ROLE_LEVEL)
    @_answering
    def preview_rules(self, context: AuthedServiceContext, dataset: str, policy: str) -> str:
        """What another policy would say of every open plan."""
        return json.dumps(self.desk.preview_rules(dataset, policy))

    @service_method(path="coterie.write_rules", name="write_rules", roles=DATA_OWNER_ROLE_LEVEL)
    @_answering
    def write_rules(
        self, context: AuthedServiceContext, dataset: str, policy: str, signature: str
    ) -> str:
        """Let other rules apply, which the owner signed; gives what `rules` does then."""
        return json.dumps(self.desk.write_rules(dataset, policy, signature, self._email(context)))

    @service_method(path="coterie.withdraw", name="withdraw", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @_answering
    def withdraw(self, context: AuthedServiceContext, plan_hash: str, reason: str) -> str:
        """Its scientist takes a plan back, decided or not."""
        plan = self._own_plan(context, plan_hash)
        return self.desk.withdraw(plan, self._email(context), reason)

    @service_method(path="coterie.revoke", name="revoke", roles=DATA_OWNER_ROLE_LEVEL)
    @_answering
    def revoke(self, context: AuthedServiceContext, plan_hash: str, reason: str) -> str:
        """The owner takes her approval back: the next release doesn't happen."""
        return self.desk.revoke(plan_hash, self._email(context), reason)

    @service_method(path="coterie.preapprove", name="preapprove", roles=DATA_OWNER_ROLE_LEVEL)
    @_answering
    def preapprove(self, context: AuthedServiceContext, envelope: str) -> str:
        """Keep a signed envelope; gives its hash."""
        return self.desk.preapprove(envelope)

    @service_method(path="coterie.envelopes", name="envelopes", roles=DATA_OWNER_ROLE_LEVEL)
    @_answering
    def envelopes(self, context: AuthedServiceContext) -> str:
        """The envelopes kept here."""
        return json.dumps(self.desk.envelopes())

    @service_method(path="coterie.discard", name="discard", roles=DATA_OWNER_ROLE_LEVEL)
    @_answering
    def discard(self, context: AuthedServiceContext, envelope_hash: str) -> str:
        """Approve nothing more by this envelope."""
        self.desk.discard(envelope_hash)
        return "discarded"

    @service_method(path="coterie.budgets", name="budgets", roles=GUEST_ROLE_LEVEL)
    @_answering
    def budgets(self, context: AuthedServiceContext) -> str:
        """Every population's cap, spend and what is left."""
        return json.dumps(self.desk.budgets())

    @service_method(path="coterie.open", name="open", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @_answering
    def open(self, context: AuthedServiceContext, plan_hash: str, approvals: str) -> str:
        """Begin or take up a run; `approvals` are the owners' signatures by domain, as JSON."""
        plan = self._own_plan(context, plan_hash)
        signatures = json.loads(approvals)
        if not isinstance(signatures, dict):
            raise RoundRefused("approvals must be a JSON object of signatures by domain.")
        self.participation.open(plan, signatures, self.desk.dataset(plan.dataset))
        return json.dumps(self.desk.progress(plan_hash))

    @service_method(path="coterie.progress", name="progress", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @_answering
    def progress(self, context: AuthedServiceContext, plan_hash: str) -> str:
        """Which attempts of which releases this domain has reserved, charged or voided."""
        self._own_plan(context, plan_hash)
        return json.dumps(self.desk.progress(plan_hash))

    @service_method(path="coterie.advertise", name="advertise", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @_answering
    def advertise(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        tensor: str = "",
    ) -> str:
        """Fresh ephemeral keys for one attempt, signed by this node.

        `tensor`: NAME/LENGTH of what a kept step's release reveals.

        Also the sizes of the peers' ledger heads it holds, and the digest of the state it holds.
        """
        self._own_plan(context, plan_hash)
        advert, held = self.participation.advertise(plan_hash, step, release, attempt, tensor)
        state = self.participation.held_state(plan_hash)
        return json.dumps({"advert": advert.to_dict(), "held": held, "state": state})

    @service_method(path="coterie.share", name="share", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @_answering
    def share(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        adverts: str,
        state: np.ndarray,
        held: str,
        state_digest: str = "",
    ) -> str:
        """Compute the noised private sum, and answer the shares sealed for the peers.

        `state`: safetensors as bytes; none of them where `state_digest` names the state held here.

        `held`: by peer, the sizes of the heads it holds of this ledger; the answer's `note` shows
        the peers that the head now extends them and that this release is set aside in it.
        """
        wire = WIRES[self._own_plan(context, plan_hash).aggregation]
        parsed = [wire.advert.from_dict(advert) for advert in _json_list(adverts)]
        sealed, note = self.participation.share(
            plan_hash,
            step,
            release,
            attempt,
            parsed,
            state_digest or _bytes_of(state),
            _sizes(held),
        )
        return json.dumps({"sealed": [shares.to_dict() for shares in sealed], "note": note})

    @service_method(path="coterie.hold", name="hold", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @_answering
    def hold(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        state_digest: str,
        size: int,
        begin: int,
        part: np.ndarray,
    ) -> str:
        """Take one part of a state that is too long for `share`; gives the bytes held so far.

        `state_digest`: BLAKE3 of the whole state of `size` bytes, hex.
        """
        self._own_plan(context, plan_hash)
        held = self.participation.hold(plan_hash, state_digest, size, begin, _bytes_of(part))
        return json.dumps({"held": held})

    @service_method(path="coterie.reveal", name="reveal", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @_answering
    def reveal(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        seeds: str,
        notes: str,
    ) -> np.ndarray:
        """This domain's masked input and its receipt, as bytes; charged before it leaves.

        Refused unless the `notes` show every member's ledger in order.
        """
        wire = WIRES[self._own_plan(context, plan_hash).aggregation]
        parsed = [wire.shared.from_dict(seed) for seed in _json_list(seeds)]
        shown = _json_object(notes)
        receipt, content = self.participation.reveal(
            plan_hash, step, release, attempt, parsed, shown
        )
        return wire.pack_input(receipt, content, 0, PART_BYTES)

    @service_method(path="coterie.masked", name="masked", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @_answering
    def masked(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        begin: int,
    ) -> np.ndarray:
        """What `reveal` answered, from byte `begin` on, at most 16 MiB of it."""
        wire = WIRES[self._own_plan(context, plan_hash).aggregation]
        receipt, content = self.participation.revealed(plan_hash, step, release, attempt)
        return wire.pack_input(receipt, content, max(0, begin), PART_BYTES)

    @service_method(path="coterie.confirm", name="confirm", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @_answering
    def confirm(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        receipts: str,
        total: str = "",
    ) -> str:
        """Sign the one set of masked inputs that this domain will help to open.

        Also gives this domain's signatures under its peers' ledger heads. `total`: under CKKS, the
        digest of the ciphertexts' sum.
        """
        plan = self._own_plan(context, plan_hash)
        parsed = [Receipt.from_dict(receipt) for receipt in _json_list(receipts)]
        more = (_digest(total),) if plan.aggregation == "ckks" else ()
        answer, signed = self.participation.confirm(
            plan_hash, step, release, attempt, parsed, *more
        )
        heads = [each.model_dump() for each in signed]
        return json.dumps({"confirmation": answer.to_dict(), "cosignatures": heads})

    @service_method(path="coterie.unmask", name="unmask", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @_answering
    def unmask(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        step: str,
        release: int,
        attempt: int,
        confirmations: str,
        cosignatures: str,
        total: np.ndarray | None = None,
    ) -> str | np.ndarray:
        """This domain's shares of what masks the total that at least tau domains confirmed.

        Refused until all of them co-signed this ledger's head. `total`: under CKKS, the
        ciphertexts' sum, which the key holder answers with the opened total.
        """
        plan = self._own_plan(context, plan_hash)
        wire = WIRES[plan.aggregation]
        parsed = [wire.confirmation.from_dict(each) for each in _json_list(confirmations)]
        signed = {
            name: [Cosignature.read(each, name) for each in _listed(found)]
            for name, found in _json_object(cosignatures).items()
        }
        more: tuple[Any, ...] = ()
        if plan.aggregation == "ckks":
            agreement = agreement_of(plan, step, release, attempt)
            more = (None if total is None else read_residues(agreement, _bytes_of(total)),)
        answer = wire.pack_opened(
            self.participation.unmask(plan_hash, step, release, attempt, parsed, signed, *more)
        )
        return answer if isinstance(answer, np.ndarray) else json.dumps(answer)

    @service_method(path="coterie.tensor_key", name="tensor_key", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @_answering
    def tensor_key(
        self, context: AuthedServiceContext, plan_hash: str, step: str, number: int
    ) -> str:
        """This node's fresh key for sharing a kept step's sum, which `number` tells from others."""
        self._own_plan(context, plan_hash)
        with self.participation.tensors(plan_hash) as tensors:
            return json.dumps(tensors.key(step, number).to_dict())

    @service_method(
        path="coterie.tensor_share", name="tensor_share", roles=DATA_SCIENTIST_ROLE_LEVEL
    )
    @_answering
    def tensor_share(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        step: str,
        number: int,
        keys: str,
        state: np.ndarray,
    ) -> str:
        """Compute a kept step's sum, keep a share of it, and answer the tensors' names.

        `state`: safetensors as bytes.
        """
        self._own_plan(context, plan_hash)
        parsed = [TensorKey.from_dict(key) for key in _json_list(keys)]
        with self.participation.tensors(plan_hash) as tensors:
            return json.dumps(tensors.share(step, number, parsed, _bytes_of(state)))

    @service_method(
        path="coterie.tensor_apply", name="tensor_apply", roles=DATA_SCIENTIST_ROLE_LEVEL
    )
    @_answering
    def tensor_apply(
        self, context: AuthedServiceContext, plan_hash: str, operation: str, matrix: np.ndarray
    ) -> str:
        """Make a tensor of others by a public-linear map; answers its name and what is proven.

        `matrix`: little-endian int64 as bytes, or none.
        """
        self._own_plan(context, plan_hash)
        asked = Operation.read(operation)
        _bytes_of(matrix)
        with self.participation.tensors(plan_hash) as tensors:
            name = tensors.apply(asked, read_matrix(matrix, asked.shape))
            return json.dumps({"name": name, "proven": tensors.tensor(name).proven.to_json()})

    @service_method(
        path="coterie.tensor_multiply", name="tensor_multiply", roles=DATA_SCIENTIST_ROLE_LEVEL
    )
    @_answering
    def tensor_multiply(
        self,
        context: AuthedServiceContext,
        plan_hash: str,
        phase: str,
        said: str,
        words: np.ndarray,
    ) -> np.ndarray:
        """One step of a secret product; `network.smpc.triples` has them and what they say.

        `said`: JSON; `words`: 64-bit words as bytes. The answer is packed as `triples.pack` does.
        """
        self._own_plan(context, plan_hash)
        with self.participation.tensors(plan_hash) as tensors:
            return multiply(tensors, phase, _json_object(said), _bytes_of(words))

    @service_method(path="coterie.tensor_drop", name="tensor_drop", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @_answering
    def tensor_drop(self, context: AuthedServiceContext, plan_hash: str, names: str) -> str:
        """Forget tensors."""
        self._own_plan(context, plan_hash)
        with self.participation.tensors(plan_hash) as tensors:
            tensors.drop([str(name) for name in _json_list(names)])
        return "dropped"

    @service_method(path="coterie.finish", name="finish", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @_answering
    def finish(self, context: AuthedServiceContext, plan_hash: str, state: np.ndarray) -> str:
        """End the run; every user's memory is computed and stays on this node."""
        self._own_plan(context, plan_hash)
        self.participation.finish(plan_hash, _bytes_of(state))
        return json.dumps({"status": self.desk.ledger.status(plan_hash)})

    @service_method(path="coterie.members", name="members", roles=DATA_OWNER_ROLE_LEVEL)
    @_answering
    def members(self, context: AuthedServiceContext) -> str:
        """Every account: email, verify key, role, until when, and whether it's over."""
        users = context.server.services.user
        found = []
        for user in users.stash.get_all(users.root_verify_key).unwrap():
            term = self.accounts.term(str(user.verify_key))
            found.append(
                {
                    "email": str(user.email),
                    "key": str(user.verify_key),
                    "role": user.role.name,
                    "until": term.until if term else None,
                    "over": self.accounts.why_ended(str(user.verify_key)) is not None,
                }
            )
        return json.dumps(found)

    @service_method(path="coterie.renew", name="renew", roles=DATA_OWNER_ROLE_LEVEL)
    @_answering
    def renew(self, context: AuthedServiceContext, email: str, days: int) -> str:
        """Let an account last so many days from now; one that was ended comes back."""
        key = self._member(context, email)
        return self.accounts.renew(key, email, days).until

    @service_method(path="coterie.expel", name="expel", roles=DATA_OWNER_ROLE_LEVEL)
    @_answering
    def expel(self, context: AuthedServiceContext, email: str, reason: str) -> str:
        """End an account now, and with it every open plan of its holder; gives their hashes."""
        key = self._member(context, email)
        self.accounts.end(key, email, reason)
        return json.dumps(self.desk.revoke_all(key, self._email(context), reason))

    @service_method(path="coterie.status", name="status", roles=DATA_OWNER_ROLE_LEVEL)
    @_answering
    def status(self, context: AuthedServiceContext) -> str:
        """How the node does, for its owner: version, minutes up, partners, co-signed heads."""
        return json.dumps({"version": version("coterie"), **self.desk.status()})

    @service_method(path="coterie.recommend", name="recommend", roles=DATA_OWNER_ROLE_LEVEL)
    @_answering
    def recommend(self, context: AuthedServiceContext, user: str, count: int) -> str:
        """The best unseen items for one of this partner's own users, by the newest model."""
        return json.dumps(self.desk.recommend(user, count, self.participation))

    @service_method(path="coterie.load_report", name="load_report", roles=DATA_OWNER_ROLE_LEVEL)
    @_answering
    def load_report(self, context: AuthedServiceContext) -> str:
        """What loading the data sets dropped or shortened, for the owner only."""
        return json.dumps(self.desk.load_reports())

    @service_method(path="coterie.ledger", name="ledger", roles=GUEST_ROLE_LEVEL)
    @_answering
    def ledger(self, context: AuthedServiceContext, after: int, limit: int) -> str:
        """Signed ledger entries, for owners and auditors."""
        self._require_auditor_or_owner(context)
        return json.dumps(self.desk.entries(after, limit))

    @service_method(path="coterie.ledger_counts", name="ledger_counts", roles=GUEST_ROLE_LEVEL)
    @_answering
    def ledger_counts(self, context: AuthedServiceContext) -> str:
        """How many entries of each kind, and plans of each status."""
        self._require_auditor_or_owner(context)
        return _json(self.desk.ledger.overview.counts())

    @service_method(path="coterie.ledger_spends", name="ledger_spends", roles=GUEST_ROLE_LEVEL)
    @_answering
    def ledger_spends(self, context: AuthedServiceContext, by: str) -> str:
        """What each day, month, scientist or plan used of the budgets."""
        self._require_auditor_or_owner(context)
        spends = self.desk.ledger.overview.spends(_one_of(by, "day", "month", "scientist", "plan"))
        return json.dumps({"adjacency": ADJACENCY, "by": by, "rows": [_dict(s) for s in spends]})

    @service_method(path="coterie.ledger_timeline", name="ledger_timeline", roles=GUEST_ROLE_LEVEL)
    @_answering
    def ledger_timeline(self, context: AuthedServiceContext, by: str) -> str:
        """How many entries of each kind every day or month brought."""
        self._require_auditor_or_owner(context)
        return json.dumps(self.desk.ledger.overview.timeline(_one_of(by, "day", "month")))

    @service_method(path="coterie.ledger_page", name="ledger_page", roles=GUEST_ROLE_LEVEL)
    @_answering
    def ledger_page(
        self, context: AuthedServiceContext, before: int, limit: int, wanted: str
    ) -> str:
        """Entries newest first; `wanted` is an `EntryFilter` as JSON."""
        self._require_auditor_or_owner(context)
        return _json(self.desk.ledger.overview.page(_filter(wanted), before, limit))

    @service_method(path="coterie.ledger_entry", name="ledger_entry", roles=GUEST_ROLE_LEVEL)
    @_answering
    def ledger_entry(self, context: AuthedServiceContext, index: int) -> str:
        """One entry, with the proof that it is in the ledger and who co-signed a head over it."""
        self._require_auditor_or_owner(context)
        return json.dumps(self.desk.ledger_entry(index))

    @service_method(path="coterie.ledger_heads", name="ledger_heads", roles=GUEST_ROLE_LEVEL)
    @_answering
    def ledger_heads(self, context: AuthedServiceContext) -> str:
        """What this node holds of its peers' ledgers, and they of its own."""
        self._require_auditor_or_owner(context)
        return json.dumps(self.desk.ledger_heads())

    @service_method(path="coterie.ledger_cosigned", name="ledger_cosigned", roles=GUEST_ROLE_LEVEL)
    @_answering
    def ledger_cosigned(self, context: AuthedServiceContext) -> str:
        """Of `ledger_heads`, the newest of each peer only, counted by the database."""
        self._require_auditor_or_owner(context)
        return json.dumps(self.desk.ledger.overview.cosigned())

    @service_method(path="coterie.ledger_runs", name="ledger_runs", roles=GUEST_ROLE_LEVEL)
    @_answering
    def ledger_runs(self, context: AuthedServiceContext) -> str:
        """Every plan that was approved, and how far it came."""
        self._require_auditor_or_owner(context)
        return json.dumps([_dict(run) for run in self.desk.ledger.overview.runs()])

    @service_method(path="coterie.verify", name="verify", roles=GUEST_ROLE_LEVEL)
    @_answering
    def verify(self, context: AuthedServiceContext) -> str:
        """The offline verifier's verdict on this node's ledger."""
        return json.dumps(self.desk.verdict())

    def approve(
        self, plan_hash: str, decided_by: str, signature: Any, reason: str, explanation: str
    ) -> str:
        """Called by `PlanChange` when the owner approves; not a service path."""
        try:
            return self.desk.approve(plan_hash, decided_by, signature, reason, explanation)
        except _REFUSALS as error:
            raise SyftException(public_message=str(error)) from None

    def deny(self, plan_hash: str, decided_by: str, reason: str, explanation: str) -> str:
        """Called by `PlanChange` when the owner denies; not a service path."""
        try:
            return self.desk.deny(plan_hash, decided_by, reason, explanation)
        except _REFUSALS as error:
            raise SyftException(public_message=str(error)) from None

    def _own_key(self, context: AuthedServiceContext) -> str | None:
        """The key whose plans the caller may see; None for all of them."""
        return str(context.credentials) if context.role == ServiceRole.DATA_SCIENTIST else None

    def _email(self, context: AuthedServiceContext) -> str:
        user = context.server.services.user.stash.get_by_verify_key(
            context.server.verify_key, context.credentials
        ).unwrap()
        return str(user.email)

    def _member(self, context: AuthedServiceContext, email: str) -> str:
        """The verify key of somebody else's account."""
        users = context.server.services.user
        try:
            user = users.stash.get_by_email(users.root_verify_key, email=email).unwrap()
        except SyftException:
            raise AccountsError(
                "There is no account of that email: coterie domain members"
            ) from None
        if user.verify_key == users.root_verify_key:
            raise AccountsError("The owner's own account lasts.")
        return str(user.verify_key)

    def _own_plan(self, context: AuthedServiceContext, plan_hash: str) -> Plan:
        plan = self.desk.plan(plan_hash, str(context.credentials))
        if plan is None:
            raise RoundRefused("You have submitted no such plan here.")
        return plan

    def _require_auditor_or_owner(self, context: AuthedServiceContext) -> None:
        if context.role == ServiceRole.DATA_SCIENTIST:
            raise SyftException(public_message="The ledger is shown to owners and auditors.")


_LEDGER_PATHS = frozenset(
    f"coterie.ledger{m}"
    for m in (
        "",
        "_counts",
        "_spends",
        "_timeline",
        "_page",
        "_entry",
        "_heads",
        "_cosigned",
        "_runs",
    )
)
PATHS = {
    ServiceRole.GUEST: frozenset(
        f"coterie.{m}" for m in ("account", "describe", "plan", "plans", "budgets", "verify")
    )
    | _LEDGER_PATHS
    | {"user.get_current_user", "metadata.get_metadata", "metadata"},
    ServiceRole.DATA_SCIENTIST: frozenset(
        f"coterie.{m}"
        for m in (
            "account", "describe", "quote", "submit", "plans", "plan", "budgets", "open",
            "progress",
            "advertise", "hold", "share", "reveal", "masked", "confirm", "unmask", "finish",
            "verify", "withdraw", "tell",
            "tensor_key", "tensor_share", "tensor_apply", "tensor_multiply", "tensor_drop",
        )
    )
    | {
        "user.get_current_user", "user.get_by_verify_key", "metadata.get_metadata", "metadata",
        "dataset.get_all", "dataset.search", "dataset.get_by_id", "action.get_mock",
        "request.get_all", "request.get_by_uid", "notifications.get_all_unread",
    },
}  # fmt: skip
_OWNER_PATHS = (
    PATHS[ServiceRole.DATA_SCIENTIST]
    | _LEDGER_PATHS
    | {f"coterie.{m}" for m in (
        "recommend", "load_report", "revoke", "preapprove", "envelopes", "discard",
        "members", "renew", "expel", "status", "weigh", "rules", "preview_rules", "write_rules",
    )}
    | {
        "user.create", "user.get_all", "user.update", "user.delete", "user.search", "user.view",
        "user.get_index", "request.apply", "request.undo", "request.get_all_pending",
        "request.get_all_approved", "request.get_all_rejected", "request.get_all_info",
        "settings.get", "notifications.get_all", "notifications.mark_as_read",
    }
)  # fmt: skip


def paths_of(role: ServiceRole) -> frozenset[str]:
    """The service paths a role may call; no path here runs submitted code."""
    if role.value >= ServiceRole.DATA_OWNER.value:
        return frozenset(_OWNER_PATHS)
    return PATHS.get(role, frozenset())


def role_name(role: ServiceRole) -> str:
    """What a role is called here: 'owner', 'scientist' or 'auditor'."""
    if role.value >= ServiceRole.DATA_OWNER.value:
        return "owner"
    return "scientist" if role == ServiceRole.DATA_SCIENTIST else "auditor"


def _filter(text: str) -> EntryFilter:
    """Raises DeskRefused unless the JSON says an `EntryFilter`."""
    try:
        said = dict(json.loads(text))
        kinds = tuple(str(kind) for kind in said.pop("kinds", ()))
        return EntryFilter(kinds=kinds, **{name: str(value) for name, value in said.items()})
    except (ValueError, TypeError) as error:
        raise DeskRefused(f"Not a filter of ledger entries: {error}") from None


def _one_of(text: str, *allowed: str) -> Any:
    if text not in allowed:
        raise DeskRefused(f"Expected {' or '.join(allowed)}, got '{text[:20]}'.")
    return text


def _json(value: Any) -> str:
    return json.dumps(_dict(value))


def _dict(value: Any) -> dict[str, Any]:
    """A flat record's fields; infinity, which JSON lacks, becomes None."""
    found = asdict(value)
    return {name: None if each == math.inf else each for name, each in found.items()}


def _json_list(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except ValueError:
        raise RoundRefused("Expected a JSON list.") from None
    if not isinstance(value, list) or len(value) > 64 * 64:
        raise RoundRefused("Expected a JSON list of at most 4,096 messages.")
    return value


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        raise RoundRefused("Expected a JSON object.") from None
    if not isinstance(value, dict) or len(value) > 64:
        raise RoundRefused("Expected a JSON object by domain, of at most 64.")
    return value


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > 64:
        raise RoundRefused("Expected a list of at most 64.")
    return value


def _sizes(held: str) -> dict[str, list[int]]:
    found = {name: _listed(sizes) for name, sizes in _json_object(held).items()}
    if any(type(size) is not int for sizes in found.values() for size in sizes):
        raise RoundRefused("Sizes of ledger heads are integers.")
    return found


def _digest(text: str) -> bytes:
    if not isinstance(text, str) or not re.fullmatch("[0-9a-f]{64}", text):
        raise RoundRefused("A digest has 64 lower-case hex digits.")
    return bytes.fromhex(text)


def _bytes_of(array: np.ndarray) -> bytes:
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 1:
        raise RoundRefused("Expected a one-dimensional uint8 array (of safetensors, if a state).")
    return array.tobytes()
