"""What the owner's rules say of a plan: refused, left to her, and what would fit."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict

from domains.dataset import PrivateDataset
from domains.examination import admit
from domains.folder import DomainSettings, Peer
from policies.accounting import epsilon_at_every_partner
from policies.ledger import Commitment, Ledger
from policies.likeness import model_of, operations_of
from policies.limits import Limit, limits_of
from policies.nearest import Offer, nearest_plans
from policies.owner_policy import PlanFacts, Refusal
from policies.plan import Plan
from policies.protection import check_dealer, check_key_holders
from policies.refusals import PlanRefused

Said = list[dict[str, str]]
_MOST_ADMITTED = 4096


class Judge:
    """One domain's rules, budget and pinned partners, put to a plan.

    Args:
        peers: the partners pinned at the moment.
        hubs: the node keys of the hubs that list this domain.
    """

    def __init__(
        self,
        settings: DomainSettings,
        node_key: str,
        ledger: Ledger,
        peers: Callable[[], Mapping[str, Peer]],
        hubs: Callable[[], Collection[str]],
    ) -> None:
        self._name = settings.name
        self._settings = settings
        self._node_key = node_key
        self._ledger = ledger
        self._peers = peers
        self._hubs = hubs
        self._admitted: dict[tuple[str, str, bool], tuple[str, str] | None] = {}

    def judge(
        self,
        plan: Plan,
        dataset: PrivateDataset,
        account: str,
        *,
        offers: bool = True,
        past: Sequence[Commitment] | None = None,
    ) -> tuple[Said, Said, Said]:
        """(rules that refuse the plan, rules that leave it to the owner, plans that would fit).

        Args:
            past: what the population's plans hold, if it was read already.
        """
        try:
            self._check_roster(plan)
            check_dealer(plan, [*self._hubs(), account])
            check_key_holders(plan, [*self._hubs(), account])
        except PlanRefused as error:
            return [{"rule": error.rule, "message": str(error)}], [], []
        refused = self.why_not_admitted(plan, dataset)
        if refused is not None:
            return [{"rule": refused[0], "message": refused[1]}], [], []
        if plan.catalogue != dataset.declaration.catalogue_hash:
            message = (
                f"{self._name} has another item catalogue than the plan "
                f"({dataset.declaration.catalogue_hash[:12]} here)."
            )
            return [{"rule": "catalogue", "message": message}], [], []
        limits = self.limits(plan, dataset, account, past)
        broken = self._broken(plan, dataset, limits)
        decided = [each for each in broken if dataset.policy.decides(each)]
        found = []
        if decided and offers:
            found = self.nearest(plan, dataset, limits)
        return (
            [asdict(_refused(each, plan, [o.text for o in found])) for each in decided],
            [asdict(each) for each in broken if not dataset.policy.decides(each)],
            [{"how": offer.how, "text": offer.text} for offer in found],
        )

    def why_not_admitted(self, plan: Plan, dataset: PrivateDataset) -> tuple[str, str] | None:
        """The platform's own checks, once for each plan, as neither it nor its bounds change: the
        rule that refuses it, and why; or None.

        Raises:
            ExaminationFailed: no process to check it in could be started.
        """
        key = plan.hash, dataset.name, dataset.public
        if key not in self._admitted:
            try:
                admit(plan, dataset.declaration.bounds, public=dataset.public)
                self._admitted[key] = None
            except PlanRefused as refused:
                self._admitted[key] = refused.rule, str(refused)
            while len(self._admitted) > _MOST_ADMITTED:
                self._admitted.pop(next(iter(self._admitted)), None)
        return self._admitted.get(key)

    def nearest(self, plan: Plan, dataset: PrivateDataset, limits: Sequence[Limit]) -> list[Offer]:
        """The nearest plans that every rule would let through: submitted now, they are taken."""
        return nearest_plans(
            plan,
            lambda other: self._fits(other, dataset, limits),
            lambda other: self._admits(other, dataset),
        )

    def _admits(self, plan: Plan, dataset: PrivateDataset) -> bool:
        return self.why_not_admitted(plan, dataset) is None

    def limits(
        self,
        plan: Plan,
        dataset: PrivateDataset,
        account: str,
        past: Sequence[Commitment] | None = None,
    ) -> list[Limit]:
        """Every limit that the plan meets, with what other plans hold of it."""
        population = dataset.declaration.population
        known = self._ledger.commitments(population) if past is None else past
        others = [each for each in known if each.plan_hash != plan.hash]
        accountant = self._ledger.accountant(population)
        return limits_of(
            dataset.policy,
            others,
            population,
            account,
            plan.dataset,
            accountant,
            author=plan.scientist,
        )

    def _broken(
        self, plan: Plan, dataset: PrivateDataset, limits: Sequence[Limit]
    ) -> list[Refusal]:
        facts = PlanFacts.of(
            plan.events(),
            plan.delta,
            dataset.declaration.users,
            plan.public,
            operations_of(plan),
            model_of(plan),
            plan.dealer.key if plan.dealer else None,
            plan.comparisons,
        )
        over = (limit.check(plan.events(), len(plan.roster)) for limit in limits)
        return [*dataset.policy.check(facts), *(each for each in over if each is not None)]

    def _fits(self, plan: Plan, dataset: PrivateDataset, limits: Sequence[Limit]) -> bool:
        # The filter is quick, and what it refuses needs no privacy loss distribution.
        if not all(
            limit.fits(plan.events())
            for limit in limits
            if dataset.policy.decides(Refusal(limit.rule, ""))
        ):
            return False
        broken = self._broken(plan, dataset, ())
        return not any(dataset.policy.decides(each) for each in broken)

    def why_not_roster(self, plan: Plan) -> str | None:
        """Why a plan's partners aren't, or no longer, those that the owner pinned.

        Or why its dealer can't deal, or a partner can't hold the key of CKKS: a hub that listed
        this domain since does neither.
        """
        try:
            self._check_roster(plan)
            hubs = self._hubs()
            check_dealer(plan, hubs)
            check_key_holders(plan, hubs)
        except PlanRefused as error:
            return str(error)
        return None

    def _check_roster(self, plan: Plan) -> None:
        entries = {entry.name: entry for entry in plan.roster}
        mine = entries.get(self._name)
        expected = (self._settings.server_uid, self._node_key, self._settings.owner_key)
        if mine is None or (mine.server_uid, mine.node_key, mine.owner_key) != expected:
            raise PlanRefused("roster", f"The plan's roster doesn't name {self._name} as it is.")
        pinned = self._peers()
        for name, entry in entries.items():
            if name == self._name:
                continue
            peer = pinned.get(name)
            if peer is None or (peer.node_key, peer.owner_key) != (entry.node_key, entry.owner_key):
                raise PlanRefused(
                    "roster",
                    f"{self._name}'s owner has not pinned these keys for '{name}'. Compare them "
                    f"with that partner, then: coterie domain pin {self._name} {name}",
                )


def _refused(refusal: Refusal, plan: Plan, offers: Sequence[str]) -> Refusal:
    lines = [refusal.message]
    if refusal.rule == "max_epsilon_per_plan":
        bound = epsilon_at_every_partner(plan.events(), plan.delta, len(plan.roster))
        lines.append(f"A person who is a user at every partner: epsilon {bound:.3f}.")
    if offers:
        lines.append(f"A plan that fits: {'; or '.join(offers)}")
    elif "Short by" in refusal.message:
        lines.append("No plan like this fits: the owner would have to raise the limit.")
    return Refusal(refusal.rule, "\n".join(lines))
