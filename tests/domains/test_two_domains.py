"""A plan of two partners, whole: each sees the other's total, under all of the accounted noise.

Each can subtract its own part from what is opened. So both owners must say yes to that, each adds
the noise that is accounted by itself, and without either nothing is opened.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2, norm

from domains.refusals import RoundRefused
from network.smpc.coordination import SumAborted
from network.smpc.messages import Unmasking
from network.updates import noise_std
from policies.accounting import Event, plan_epsilon
from policies.approvals import owner_key_hex
from policies.protection import check_roster
from policies.refusals import PlanRefused
from policies.verify import verify
from tests.domains.participating_domains import Carried, Domains, domains_in

PAIR = ("east", "north")
NUMBERS = 4096
ERROR_RATE = 1e-10
"""Of each statistical check; there are five."""


@pytest.fixture
def pair(tmp_path: Path) -> Domains:
    return domains_in(tmp_path, names=PAIR, two_domains=True)


def states(domains: Domains, name: str) -> list[tuple[int, int, str]]:
    found = domains.ledgers[name].attempts(domains.plan.hash)
    return [(release, attempt, state) for _, release, attempt, state in found]


def bodies(domains: Domains, name: str, kind: str) -> list[dict[str, Any]]:
    return [json.loads(e.body) for e in domains.ledgers[name].entries() if e.kind == kind]


def test_both_owners_read_that_each_sees_the_other_s_total_and_both_must_say_yes(
    pair: Domains,
) -> None:
    check_roster(pair.plan)
    said = " ".join(pair.plan.explain().split())
    assert "TWO PARTNERS ONLY" in said
    assert "sees the other's total, under the full noise that the other added" in said
    with pytest.raises(PlanRefused, match="two_domains"):
        check_roster(pair.plan.model_copy(update={"two_domains": False}))
    alone = {"east": pair.approvals["east"]}
    dataset: Any = SimpleNamespace(users=10, public=False)
    for name in PAIR:
        part = pair.restart(name)
        with pytest.raises(RoundRefused, match="north"):
            part.open(pair.plan, alone, dataset)
        with pytest.raises(RoundRefused, match="no run of this plan is open"):
            part.advertise(pair.plan.hash, "s", 0, 0)


def test_each_domain_adds_and_is_charged_all_of_the_accounted_noise(pair: Domains) -> None:
    step = pair.plan.steps[0]
    assert pair.plan.noise_shares == 1
    alone = step.noise_multiplier * step.clip_norm
    assert noise_std(pair.plan, step) == pytest.approx(alone * 2**0.5), "both add all of it"
    for release in range(step.releases):
        assert pair.round(release).survivors == PAIR
    for name, other in (PAIR, PAIR[::-1]):
        assert states(pair, name) == [(release, 0, "charged") for release in range(step.releases)]
        events = [Event(**body["event"]) for body in bodies(pair, name, "reservation")]
        assert events == [Event(step.noise_multiplier, 1.0, 1)] * step.releases
        assert plan_epsilon(events, pair.plan.delta) <= 4.0, "what its owner approved"
        ledger = pair.ledgers[name]
        assert {each["witness"] for each in ledger.heads.kept()} == {other}
        verdict = verify(ledger.entries(), owner_key_hex(pair.keys[name]))
        assert verdict.ok, verdict.text
        for body in bodies(pair, name, "release"):
            assert set(body["opened"]) == set(PAIR)


@pytest.mark.parametrize(
    ("phase", "left"),
    [("advertise", []), ("share", ["void"]), ("reveal", ["charged"]), ("confirm", ["charged"]),
     ("unmask", ["charged"])],
)  # fmt: skip
@pytest.mark.parametrize("silent", PAIR)
def test_without_either_nothing_is_opened_and_the_repeat_has_noise_of_its_own(
    silent: str, phase: str, left: list[str], pair: Domains
) -> None:
    (other,) = set(PAIR) - {silent}
    first, said = Carried(pair), list[Any]()

    def exchange(step: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        asked = {n: a for n, a in arguments.items() if (n, step) != (silent, phase)}
        answers = first.exchange(step, asked)
        said.extend(answers.values())
        return answers

    with pytest.raises(SumAborted) as aborted:
        first.run(exchange)
    assert (aborted.value.domain, aborted.value.phase) == (silent, phase)
    assert sum(isinstance(each, Unmasking) for each in said) <= 1, "of the two that it takes"
    second = Carried(pair, attempt=1)
    opened = second.run()
    np.testing.assert_array_equal(opened.total, sum(second.noised.values()))
    assert [state for *_, state in states(pair, other)] == [*left, "charged"]
    for name in first.noised:
        assert (first.noised[name] != second.noised[name]).any(), "no noise serves twice"


def test_what_a_domain_has_left_of_the_total_is_the_other_s_under_its_full_noise(
    tmp_path: Path,
) -> None:
    """As it would compute it: the total minus what it gave itself, its own noise too.

    Chi-square of the variance and a z-test of the mean, 4,096 numbers each, and of the correlation
    of both domains' noise; one of the five fails by chance in
    1 of 2 x 10^9 runs.
    """
    domains = domains_in(tmp_path, size=NUMBERS, names=PAIR, two_domains=True)
    carried = Carried(domains)
    total, step = carried.run().total, domains.plan.steps[0]
    accounted = step.noise_multiplier * step.clip_norm * step.scale
    low, high = chi2.ppf(ERROR_RATE / 2, NUMBERS), chi2.isf(ERROR_RATE / 2, NUMBERS)
    bound = norm.isf(ERROR_RATE / 2)
    noises = []
    for mine, theirs in (PAIR, PAIR[::-1]):
        seen = total - carried.noised[mine]
        noise = (seen - domains.values[theirs]) / accounted
        assert low < np.sum(noise**2) < high, "neither more nor less than is accounted"
        assert abs(np.sum(noise)) < bound * NUMBERS**0.5
        noises.append(noise)
    # Of independent normal noises, the products' sum is normal with variance n, up to 1/n.
    assert abs(noises[0] @ noises[1]) < 1.05 * bound * NUMBERS**0.5
