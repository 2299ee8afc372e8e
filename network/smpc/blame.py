"""Whom domains blame, where they refuse to go on: read from what they say, or don't say.

A refusal begins with the name of the domain that it is about: the one whose message or ledger can't
be used (`SharingRefused`, `policies.ledger.HeadRefused`), else its own. One that says nothing is to
blame itself. Up to t domains lie, so more than t of them must say the same of another for it to be
sure: then an honest one does.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from network.smpc.attempt import Agreement

Refusals = Mapping[str, str]
"""What was wrong with a domain, or what it refused, by its name."""


def blamed_by(name: str, said: Refusals, names: Iterable[str]) -> str:
    """Whom a domain that didn't go on blames; itself, unless it names another."""
    reason = said.get(name, "")
    return max((n for n in names if reason.startswith(f"{n}: ")), key=len, default=name)


def would_go_on(agreement: Agreement, said: Refusals, missing: set[str]) -> list[str]:
    """Those of the missing who refused nobody but whom an honest domain refuses, sorted.

    They may be asked again without; then `forgive` them.
    """
    refused = _surely_blamed(agreement, said, missing)
    return [n for n in sorted(missing - refused) if _of(agreement, said, n) in refused]


def forgive(
    agreement: Agreement, left_out: dict[str, str], again: Iterable[str], missing: Iterable[str]
) -> None:
    """These are asked again: nothing is wrong but with whom more than t of the missing refuse."""
    sure = _surely_blamed(agreement, left_out, missing)
    for name in again:
        who, reason = _of(agreement, left_out, name), left_out.pop(name)
        if who in sure:
            left_out.setdefault(who, reason)


def culprit_of(agreement: Agreement, said: Refusals, missing: Iterable[str]) -> tuple[str, str]:
    """Who ended an attempt, of which these domains are missing, and why.

    Whom more than t of them blame; else who is missing by its own fault. Else one of two lies, the
    one who blames or the other, whom it names: then the text says so.
    """
    blamed = _by_blamed(agreement, said, missing)

    def weight(name: str) -> tuple[bool, bool, int]:
        others = set(blamed[name]) - {name}
        return len(others) > agreement.collusion, name in blamed[name], len(others)

    culprit = max(sorted(blamed), key=weight)
    by = blamed[culprit]
    reason = said.get(by[0], f"{by[0]} didn't answer")
    sure, own, _ = weight(culprit)
    if not sure and not own:
        reason += f" So says {', '.join(by)}; that one of them lies isn't excluded."
    return culprit, reason


def _surely_blamed(agreement: Agreement, said: Refusals, refusing: Iterable[str]) -> set[str]:
    """Those whom more than t of the refusing domains blame."""
    blamed = _by_blamed(agreement, said, refusing)
    return {n for n, by in blamed.items() if len(set(by) - {n}) > agreement.collusion}


def _of(agreement: Agreement, said: Refusals, name: str) -> str:
    return blamed_by(name, said, agreement.names)


def _by_blamed(
    agreement: Agreement, said: Refusals, missing: Iterable[str]
) -> Mapping[str, list[str]]:
    found = defaultdict[str, list[str]](list)
    for name in sorted(missing):
        found[blamed_by(name, said, agreement.names)].append(name)
    return found
