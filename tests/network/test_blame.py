"""Who is left out, and who is named, where domains refuse to go on because of one of them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from network.smpc.blame import blamed_by, culprit_of, would_go_on
from network.smpc.coordination import SumAborted
from network.smpc.messages import (
    Advert,
    Receipt,
    SharingRefused,
    advert_message,
    sealed_message,
)
from tests.network.keystreams import Recorder
from tests.network.lies import HONEST, LIAR, flip
from tests.network.roster_of_domains import Domains

Exchange = Callable[[str, Mapping[str, Any]], dict[str, Any]]


def deals_badly(domains: Domains, whom: set[str]) -> Exchange:
    """The liar signs shares for these peers that they can't open."""

    def unopenable(sealed: Any) -> Any:
        if sealed.receiver not in whom:
            return sealed
        bad = sealed.model_copy(update={"ciphertext": flip(sealed.ciphertext)})
        transcript = domains.parties[LIAR]._secrets.transcript
        signature = domains.keys[LIAR].sign(sealed_message(transcript, dict(bad)))
        return bad.model_copy(update={"signature": signature})

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = domains.exchange(phase, arguments)
        if phase == "share":
            answers[LIAR] = [unopenable(each) for each in answers[LIAR]]
        return answers

    return exchange


def others(domains: Domains) -> list[str]:
    return [name for name in domains.keys if name != LIAR]


def test_a_dealer_whose_shares_nobody_can_open_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr("network.smpc.aggregation.apply", recorder.apply)
    domains = Domains(8, 6, 2)
    opened = domains.run(deals_badly(domains, set(others(domains))))
    assert opened.survivors == tuple(others(domains))
    assert set(opened.left_out) == {LIAR}
    np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))
    inputs = [each for each in domains.said if isinstance(each, tuple)]
    given = [each[0].domain for each in inputs if isinstance(each[0], Receipt)]
    assert sorted(given) == sorted(domains.keys), "each masked its input once"


def test_above_sixteen_a_dealer_of_bad_shares_is_named() -> None:
    """Its neighbours alone refuse; the others have masked by then, and can't again without it."""
    domains = Domains(20, 18, 2)
    with pytest.raises(SumAborted) as aborted:
        domains.run(deals_badly(domains, set(domains.agreement.neighbourhood(LIAR))))
    assert aborted.value.domain == LIAR


@pytest.mark.parametrize("cheated", [3, 4, 5])
def test_a_dealer_that_cheats_on_some_is_named_where_neither_part_is_enough(cheated: int) -> None:
    domains = Domains(8, 6, 2)
    with pytest.raises(SumAborted) as aborted:
        domains.run(deals_badly(domains, set(others(domains)[:cheated])))
    assert (aborted.value.domain, aborted.value.phase) == (LIAR, "reveal")
    assert not domains.unmaskings()


@pytest.mark.parametrize("cheated", [1, 2])
def test_so_few_that_they_may_be_the_liars_fall_out_themselves(cheated: int) -> None:
    domains = Domains(8, 6, 2)
    few = set(others(domains)[:cheated])
    opened = domains.run(deals_badly(domains, few))
    assert set(opened.left_out) == few
    assert all(each.startswith(f"{LIAR}: ") for each in opened.left_out.values())
    np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))


@pytest.mark.parametrize("cheated", [1, 2])
def test_among_three_a_dealer_of_bad_shares_is_named(cheated: int) -> None:
    domains = Domains(3, 3, 1)
    with pytest.raises(SumAborted) as aborted:
        domains.run(deals_badly(domains, set(others(domains)[:cheated])))
    assert (aborted.value.domain, aborted.value.phase) == (LIAR, "reveal")
    one_of_two = "that one of them lies isn't excluded" in str(aborted.value)
    assert one_of_two == (cheated == 1), "one domain alone may have made it up"


def test_as_many_as_may_lie_can_t_have_an_honest_domain_left_out() -> None:
    """They refuse what it dealt: the six others go on, it among them."""
    domains, liars = Domains(8, 6, 2), (LIAR, "domain-2")

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = domains.exchange(phase, arguments)
        if phase == "reveal":
            for name in liars:
                del answers[name]
                domains.left_out[name] = f"{HONEST}: the shares it signed aren't those inside"
        return answers

    opened = domains.run(exchange)
    assert HONEST in opened.survivors
    assert set(opened.left_out) == set(liars)


def test_a_domain_that_copied_a_key_ends_nothing() -> None:
    """Two adverts with one key: which domain copied it nobody can tell, so the second is out."""
    domains = Domains(8, 6, 2)

    def exchange(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if phase == "advertise":
            party = domains.parties[LIAR]
            party.advertise()
            secrets, theirs = party._secrets, domains.parties[HONEST]
            theirs.advertise()
            secrets.pairwise = theirs._secrets.pairwise
            fields = dict(secrets.advert) | {"mask_key": secrets.pairwise.public_key}
            secrets.advert = signed_advert(domains, fields)
        return domains.exchange(phase, arguments)

    opened = domains.run(exchange)
    assert "the same public key" in opened.left_out[LIAR]
    np.testing.assert_array_equal(opened.total, domains.sum_of(opened.survivors))


def signed_advert(domains: Domains, fields: dict[str, Any]) -> Any:
    signature = domains.keys[LIAR].sign(advert_message(domains.agreement, fields))
    return Advert(**{**fields, "signature": signature})


def refused(who: str) -> str:
    return str(SharingRefused(who, "it can't be used"))


def test_a_refusal_begins_with_whom_it_is_about() -> None:
    names = ("a", "a: b", "c")
    assert blamed_by("c", {"c": refused("a")}, names) == "a"
    assert blamed_by("c", {"c": refused("a: b")}, names) == "a: b", "the longest name that fits"
    for own in ({}, {"c": "the node failed"}, {"c": refused("c")}, {"c": refused("nobody")}):
        assert blamed_by("c", own, names) == "c"


def test_who_ended_an_attempt_is_whom_more_than_t_blame_else_who_is_missing_itself() -> None:
    agreement = Domains(8, 7, 5).agreement  # t = 5
    a, b, c = "domain-0", "domain-1", "domain-2"
    assert culprit_of(agreement, {b: refused(a)}, {b, c}) == (c, f"{c} didn't answer")
    assert culprit_of(agreement, {b: refused(a)}, {b})[0] == a
    assert culprit_of(agreement, {b: refused(a), c: refused(a)}, {b, c})[0] == a
    sure = replace(agreement, collusion=1)
    said = {b: refused(a), c: refused(a)}
    assert culprit_of(sure, said, {b, c, "domain-3"}) == (a, refused(a))
    assert would_go_on(sure, said, {b, c, "domain-3"}) == [b, c]
    assert would_go_on(agreement, said, {b, c}) == []
