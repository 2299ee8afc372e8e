"""What a Coterie node answers, as native Syft services: here plans, decisions and budgets.

Every method is thin: it reads strictly, asks the room that decides, and answers JSON text or an
integer array. Scientists see their own plans; auditors (Syft guests with an account) see the
ledger; owners see and decide everything on their node.
"""

import json
from importlib.metadata import version
from typing import Any

import structlog
from syft.serde.serializable import serializable
from syft.service.context import AuthedServiceContext
from syft.service.request.request import SubmitRequest
from syft.service.service import service_method
from syft.service.user.user_roles import (
    DATA_OWNER_ROLE_LEVEL,
    DATA_SCIENTIST_ROLE_LEVEL,
    GUEST_ROLE_LEVEL,
)
from syft.types.errors import SyftException

from domains.answering import REFUSALS, Answering, answering
from domains.arguments import json_object
from domains.launcher import warm_up
from domains.request import PlanChange
from policies.plan import Plan

_log = structlog.get_logger("coterie.service")


@serializable(canonical_name="CoterieService", version=1)
class CoterieService(Answering):
    """The `coterie.*` methods about plans and what they may spend."""

    @service_method(path="coterie.describe", name="describe", roles=GUEST_ROLE_LEVEL)
    @answering
    def describe(self, context: AuthedServiceContext) -> str:
        """Who this domain is and which data sets it declares. Nothing is computed from rows."""
        return json.dumps({**self.desk.card(), "version": version("coterie")})

    @service_method(path="coterie.quote", name="quote", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @answering
    def quote(self, context: AuthedServiceContext, plan: str) -> str:
        """What this domain would say to a plan: its cost, and every rule that refuses it."""
        return json.dumps(self.desk.quote(Plan.from_json(plan), str(context.credentials)))

    @service_method(path="coterie.submit", name="submit", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @answering
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
    @answering
    def plans(self, context: AuthedServiceContext) -> str:
        """Plans and where their approval stands; a scientist gets her own."""
        return json.dumps(self.desk.plans(self.own_key(context)))

    @service_method(path="coterie.plan", name="plan", roles=GUEST_ROLE_LEVEL)
    @answering
    def plan(self, context: AuthedServiceContext, plan_hash: str) -> str:
        """One plan, by its hash or how it starts: JSON, explanation, status, signed approval."""
        return json.dumps(self.desk.show(plan_hash, self.own_key(context)))

    @service_method(path="coterie.weigh", name="weigh", roles=DATA_OWNER_ROLE_LEVEL)
    @answering
    def weigh(self, context: AuthedServiceContext, plan_hash: str) -> str:
        """What the owner weighs of one plan: limits with and without it, rules, who agreed."""
        return json.dumps(self.desk.weigh(plan_hash))

    @service_method(path="coterie.tell", name="tell", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @answering
    def tell(self, context: AuthedServiceContext, plan_hash: str, approvals: str) -> str:
        """Its scientist passes on what other owners decided: JSON, by domain (`domains.told`)."""
        self.desk.tell(self.own_plan(context, plan_hash), json_object(approvals))
        return "told"

    @service_method(path="coterie.rules", name="rules", roles=DATA_OWNER_ROLE_LEVEL)
    @answering
    def rules(self, context: AuthedServiceContext, dataset: str) -> str:
        """A data set's policy file, whether the node applies it, and who changed it when."""
        return json.dumps(self.desk.rules(dataset))

    @service_method(path="coterie.preview_rules", name="preview_rules", roles=DATA_OWNER_ROLE_LEVEL)
    @answering
    def preview_rules(self, context: AuthedServiceContext, dataset: str, policy: str) -> str:
        """What another policy would say of every open plan."""
        return json.dumps(self.desk.preview_rules(dataset, policy))

    @service_method(path="coterie.write_rules", name="write_rules", roles=DATA_OWNER_ROLE_LEVEL)
    @answering
    def write_rules(
        self, context: AuthedServiceContext, dataset: str, policy: str, signature: str
    ) -> str:
        """Let other rules apply, which the owner signed; gives what `rules` does then."""
        return json.dumps(self.desk.write_rules(dataset, policy, signature, self.email_of(context)))

    @service_method(path="coterie.withdraw", name="withdraw", roles=DATA_SCIENTIST_ROLE_LEVEL)
    @answering
    def withdraw(self, context: AuthedServiceContext, plan_hash: str, reason: str) -> str:
        """Its scientist takes a plan back, decided or not."""
        plan = self.own_plan(context, plan_hash)
        return self.desk.withdraw(plan, self.email_of(context), reason)

    @service_method(path="coterie.revoke", name="revoke", roles=DATA_OWNER_ROLE_LEVEL)
    @answering
    def revoke(self, context: AuthedServiceContext, plan_hash: str, reason: str) -> str:
        """The owner takes her approval back: the next release doesn't happen."""
        return self.desk.revoke(plan_hash, self.email_of(context), reason)

    @service_method(path="coterie.preapprove", name="preapprove", roles=DATA_OWNER_ROLE_LEVEL)
    @answering
    def preapprove(self, context: AuthedServiceContext, envelope: str) -> str:
        """Keep a signed envelope; gives its hash."""
        return self.desk.preapprove(envelope)

    @service_method(path="coterie.envelopes", name="envelopes", roles=DATA_OWNER_ROLE_LEVEL)
    @answering
    def envelopes(self, context: AuthedServiceContext) -> str:
        """The envelopes kept here."""
        return json.dumps(self.desk.envelopes())

    @service_method(path="coterie.discard", name="discard", roles=DATA_OWNER_ROLE_LEVEL)
    @answering
    def discard(self, context: AuthedServiceContext, envelope_hash: str) -> str:
        """Approve nothing more by this envelope."""
        self.desk.discard(envelope_hash)
        return "discarded"

    @service_method(path="coterie.budgets", name="budgets", roles=GUEST_ROLE_LEVEL)
    @answering
    def budgets(self, context: AuthedServiceContext) -> str:
        """Every population's cap, spend and what is left."""
        return json.dumps(self.desk.budgets())

    @service_method(path="coterie.status", name="status", roles=DATA_OWNER_ROLE_LEVEL)
    @answering
    def status(self, context: AuthedServiceContext) -> str:
        """How the node does, for its owner: version, minutes up, partners, co-signed heads."""
        return json.dumps({"version": version("coterie"), **self.desk.status()})

    @service_method(path="coterie.recommend", name="recommend", roles=DATA_OWNER_ROLE_LEVEL)
    @answering
    def recommend(self, context: AuthedServiceContext, user: str, count: int) -> str:
        """The best unseen items for one of this partner's own users, by the newest model."""
        return json.dumps(self.desk.recommend(user, count, self.participation))

    @service_method(path="coterie.load_report", name="load_report", roles=DATA_OWNER_ROLE_LEVEL)
    @answering
    def load_report(self, context: AuthedServiceContext) -> str:
        """What loading the data sets dropped or shortened, for the owner only."""
        return json.dumps(self.desk.load_reports())

    def approve(
        self, plan_hash: str, decided_by: str, signature: Any, reason: str, explanation: str
    ) -> str:
        """Called by `PlanChange` when the owner approves; not a service path."""
        try:
            return self.desk.approve(plan_hash, decided_by, signature, reason, explanation)
        except REFUSALS as error:
            raise SyftException(public_message=str(error)) from None

    def deny(self, plan_hash: str, decided_by: str, reason: str, explanation: str) -> str:
        """Called by `PlanChange` when the owner denies; not a service path."""
        try:
            return self.desk.deny(plan_hash, decided_by, reason, explanation)
        except REFUSALS as error:
            raise SyftException(public_message=str(error)) from None
