"""A node's standing rules: each data set's policy file, and every change of it in the ledger.

A change is the owner's word, signed with her own key: a password shows and previews rules, and
changes none. It applies at once, to every decision from then on. A file that was changed on the
node's machine instead applies from the next start, where the ledger records it too.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from domains.dataset import PrivateDataset
from domains.folder import write_private
from policies.amendments import Amendment, changes_between, loosened
from policies.approvals import read_statement
from policies.canonical import sha256_hex
from policies.ledger import Ledger
from policies.owner_policy import OwnerPolicy, OwnerPolicyError

_BY_FILE_ONLY = ("second_approvers", "public")
"""One key takes no second person away, and no data becomes public while a run has it open."""
_OF_BUDGET = ("epsilon", "delta", "public")
_LONGEST = 100_000


class RulesRefused(Exception):
    """The rules stay as they are; the text says why and what to do next."""


@dataclass(frozen=True)
class RuleFiles:
    """The rules of every data set of one node.

    Attributes:
        domain: its name.
        owner_key: of whoever may change them, 64 hex characters.
        ledger: where each change is recorded.
        datasets: the node's data sets, each with the rules that apply.
        kept: folder with the files that were read last, to see what else changed them.
    """

    domain: str
    owner_key: str
    ledger: Ledger
    datasets: MutableMapping[str, PrivateDataset]
    kept: Path

    def notice(self) -> None:
        """Record what was changed in the files since the rules were read last."""
        self.kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        for dataset in self.datasets.values():
            text, before = dataset.policy_file.read_text(), self._kept(dataset)
            if before not in (None, text):
                known = self.ledger.amendments.of(dataset.name)
                if not known or known[0]["rules"] != _digest(text):
                    reason = f"{dataset.policy_file.name} was changed on the node's machine"
                    self._record(dataset, str(before), text, by="", reason=reason)
            self._keep(dataset, text)

    def shown(self, dataset: PrivateDataset) -> dict[str, Any]:
        """The file as it lies there, whether it applies, and every change of it, newest first."""
        text = dataset.policy_file.read_bytes().decode()
        try:
            applied, problem = OwnerPolicy.parse(text) == dataset.policy, None
        except OwnerPolicyError as error:
            applied, problem = False, str(error)
        said = ("time", "by", "reason", "changes", "owner_key")
        return {
            "text": text,
            "digest": _digest(text),
            "applied": applied,
            "problem": problem,
            "history": [
                {name: change[name] for name in said}
                for change in self.ledger.amendments.of(dataset.name)
            ],
        }

    def change(self, dataset: PrivateDataset, text: str, signature: str, by: str) -> None:
        """Let these rules apply from now on.

        Args:
            text: of the whole new policy file.
            signature: the owner's (`policies.amendments`).
            by: whose account brings it.

        Raises:
            RulesRefused: the text is no policy, or isn't what the owner signed to replace the file
                that lies there; or it changes what only the file itself may.
        """
        lying = dataset.policy_file.read_bytes().decode()
        now, then = policy_of(lying), policy_of(text)
        signed = self._signed(dataset, lying, text, signature)
        self._check_by_file(dataset, now, then)
        write_private(dataset.policy_file, text)
        try:
            self._record(
                dataset, lying, text, signed.by or by, signed.reason, self.owner_key, signature
            )
        except BaseException:
            write_private(dataset.policy_file, lying)
            raise
        self._keep(dataset, text)
        self.datasets[dataset.name] = replace(dataset, policy=then)
        population = dataset.declaration.population
        self.ledger.open_budget(population, then.epsilon, then.delta, then.public)

    def _signed(self, dataset: PrivateDataset, lying: str, text: str, signature: str) -> Amendment:
        signed = read_statement(Amendment, self.owner_key, self.domain, signature)
        if signed is None or signed.data_set != dataset.name or signed.rules != _digest(text):
            raise RulesRefused(
                f"This is not signed by {self.domain}'s owner key ({self.owner_key[:16]}…) for "
                "exactly these rules. Sign with that key: coterie rules write, or rules sign"
            )
        if signed.replaces != _digest(lying):
            raise RulesRefused("The rules were changed meanwhile. Look at them again first.")
        if not signed.holds():
            raise RulesRefused(f"What was signed expired at {signed.expires}. Sign again.")
        if signed.ahead():
            raise RulesRefused(
                f"This was signed {signed.signed}, which is in the future for {self.domain}: one"
                " of the two clocks is wrong. Set it and sign again."
            )
        if any(each["signature"] == signature for each in self.ledger.amendments.of(dataset.name)):
            raise RulesRefused("This signature was used already. Sign again.")
        return signed

    def _check_by_file(self, dataset: PrivateDataset, now: OwnerPolicy, then: OwnerPolicy) -> None:
        for name in _BY_FILE_ONLY:
            if getattr(then, name) != getattr(now, name):
                raise RulesRefused(
                    f"'{name}' is changed in {dataset.policy_file.name} on the node's machine "
                    "only, with the node stopped: one key alone must not decide it."
                )
        if now.second_approvers and (looser := loosened(now, then)):
            raise RulesRefused(
                f"Two persons approve here, and this loosens {', '.join(looser)}: change it in "
                f"{dataset.policy_file.name} on the node's machine, with the node stopped. One "
                "key alone may only make rules stricter."
            )
        population = dataset.declaration.population
        for other in self.datasets.values():
            if other.name == dataset.name or other.declaration.population != population:
                continue
            for name in _OF_BUDGET:
                asked, there = getattr(then, name), getattr(other.policy, name)
                if asked not in (there, getattr(now, name)):
                    raise RulesRefused(
                        f"'{name}' is the budget's, which '{other.name}' shares (there {there}). "
                        "Change it in both files on the node's machine, with the node stopped."
                    )

    def _record(
        self,
        dataset: PrivateDataset,
        before: str,
        after: str,
        by: str,
        reason: str,
        owner_key: str = "",
        signature: str = "",
    ) -> None:
        try:
            changes = changes_between(OwnerPolicy.parse(before), OwnerPolicy.parse(after))
        except OwnerPolicyError:
            changes = [["all", "not readable", "see the file"]]
        self.ledger.amendments.record(
            dataset.declaration.population,
            dataset.name,
            _digest(before),
            _digest(after),
            changes,
            by=by,
            reason=reason,
            owner_key=owner_key,
            signature=signature,
        )

    def _kept(self, dataset: PrivateDataset) -> str | None:
        file = self.kept / f"{dataset.name}.toml"
        return file.read_text() if file.exists() else None

    def _keep(self, dataset: PrivateDataset, text: str) -> None:
        write_private(self.kept / f"{dataset.name}.toml", text)


def policy_of(text: str) -> OwnerPolicy:
    """The policy that a text says.

    Raises:
        RulesRefused: too long, not TOML, an unknown setting or a value out of range.
    """
    if len(text) > _LONGEST:
        raise RulesRefused(f"Rules are at most {_LONGEST} characters long.")
    try:
        return OwnerPolicy.parse(text)
    except OwnerPolicyError as error:
        raise RulesRefused(str(error)) from None


def _digest(text: str) -> str:
    return sha256_hex(text.encode())
