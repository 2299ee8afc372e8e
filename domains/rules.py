"""An owner's rules: read, tried on open plans, changed under her signature."""

from dataclasses import replace
from typing import Any

from domains.rule_files import policy_of
from domains.shelf import Shelf

_OPEN = ("pending", "awaiting signature", "approved")


class Rules(Shelf):
    """Part of `Desk`: rules."""

    def rules(self, data_set: str) -> dict[str, Any]:
        """The policy file of a data set as it lies there, whether the node applies it, and when,
        why and by whom it was changed.

        `digest`: SHA-256 of the text, hex, which the next change names.
        """
        return self._rule_files.shown(self.dataset(data_set))

    def preview_rules(self, data_set: str, text: str) -> list[dict[str, Any]]:
        """What other rules would say of every open plan on a data set, beside what they say now.

        Raises:
            RulesRefused: the text is no policy; says which setting and what was expected.
        """
        dataset = self.dataset(data_set)
        other = replace(dataset, policy=policy_of(text))
        past = self.ledger.commitments(dataset.declaration.population)
        found = []
        for record in self.ledger.plans():
            plan = self.plan(record.plan_hash, None) if record.status in _OPEN else None
            if plan is None or plan.dataset != data_set:
                continue
            now, then = (
                [*refused, *advice]
                for refused, advice, _ in (
                    self._judge.judge(plan, each, record.scientist, offers=False, past=past)
                    for each in (dataset, other)
                )
            )
            found.append(
                {
                    "plan_hash": plan.hash,
                    "name": plan.name,
                    "status": record.status,
                    "now": now,
                    "then": then,
                }
            )
        return found

    def write_rules(self, data_set: str, text: str, signature: str, by: str) -> dict[str, Any]:
        """Let other rules apply to every decision from now on; gives what `rules` does then.

        Args:
            signature: the owner's under the whole text (`policies.amendments`).
            by: whose account brings it.

        Raises:
            RulesRefused: not what the owner signed, or not to be changed so.
        """
        with self._deciding:
            self._rule_files.change(self.dataset(data_set), text, signature, by)
        return self.rules(data_set)
