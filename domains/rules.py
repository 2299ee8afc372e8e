"""An owner's policy file: read, tried on open plans, replaced."""

from dataclasses import replace
from typing import Any

from domains.folder import write_private
from domains.shelf import DeskRefused, Shelf
from policies.canonical import sha256_hex
from policies.owner_policy import OwnerPolicy, OwnerPolicyError

_OPEN = ("pending", "awaiting signature", "approved")
_BY_FILE_ONLY = ("second_approvers", "dealers", "comparisons", "office_hours", "public")
"""Rules that bind whoever signs in, too."""
_LONGEST_RULES = 100_000


class Rules(Shelf):
    """Part of `Desk`: rules."""

    def rules(self, data_set: str) -> dict[str, Any]:
        """The policy file of a data set as it lies there, and whether the node applies it.

        `digest`: SHA-256 of the text, hex; give it back to `write_rules`.
        """
        dataset = self.dataset(data_set)
        text = dataset.policy_file.read_bytes().decode()
        try:
            applied, problem = OwnerPolicy.parse(text) == dataset.policy, None
        except OwnerPolicyError as error:
            applied, problem = False, str(error)
        digest = sha256_hex(text.encode())
        return {"text": text, "digest": digest, "applied": applied, "problem": problem}

    def preview_rules(self, data_set: str, text: str) -> list[dict[str, Any]]:
        """What other rules would say of every open plan on a data set, beside what they say now.

        Raises:
            DeskRefused: the text is no policy; says which setting and what was expected.
        """
        dataset = self.dataset(data_set)
        other = replace(dataset, policy=_policy(text))
        found = []
        for record in self.ledger.plans():
            plan = self.plan(record.plan_hash, None) if record.status in _OPEN else None
            if plan is None or plan.dataset != data_set:
                continue
            now, then = (
                [*refused, *advice]
                for refused, advice, _ in (
                    self._judge.judge(plan, each, record.scientist, offers=False)
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

    def write_rules(self, data_set: str, text: str, replaces: str) -> str:
        """Replace a data set's policy file; it applies from the node's next start on.

        Args:
            replaces: `digest` of the file that was looked at.

        Returns:
            The new digest.

        Raises:
            DeskRefused: the text is no policy, changes whom the owner trusts, or the file was
                changed in between.
        """
        file, then = self.dataset(data_set).policy_file, _policy(text)
        with self._deciding:
            lying = file.read_bytes()
            if sha256_hex(lying) != replaces:
                raise DeskRefused("The rules were changed meanwhile. Look at them again first.")
            now = _policy(lying.decode())
            for name in _BY_FILE_ONLY:
                if getattr(then, name) != getattr(now, name):
                    raise DeskRefused(
                        f"'{name}' is changed in {file.name} on the node's machine only: a "
                        "password isn't enough to decide whom or what others rely on."
                    )
            write_private(file, text)
        return sha256_hex(text.encode())


def _policy(text: str) -> OwnerPolicy:
    if len(text) > _LONGEST_RULES:
        raise DeskRefused(f"Rules are at most {_LONGEST_RULES} characters long.")
    try:
        return OwnerPolicy.parse(text)
    except OwnerPolicyError as error:
        raise DeskRefused(str(error)) from None
