"""A coordinator that calls three domains in any order, with anything that it has heard.

Whatever it does, nothing leaves uncharged, nothing that was given back has left, no noise and no
piece of keystream serves twice, no domain says two things, and an honest round is still possible.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from domains.answering import REFUSALS
from network.smpc import aggregation
from network.smpc.aggregation import Party
from network.smpc.masks import digest_of
from network.smpc.messages import Receipt, Unmasking
from tests.domains.participating_domains import NAMES, STATE, Carried, Domains, domains_in
from tests.network.keystreams import Recorder

RELEASES = 12
STEPS = ("advertise", "share", "reveal", "masked", "confirm", "unmask")


class AnyOrder:
    """Knows what every domain said in every attempt, and mixes it.

    Attributes:
        left: by attempt and domain, the digest of the masked input that it answered.
        said: by attempt and domain, the shares that it answered.
    """

    def __init__(self, domains: Domains, seed: int) -> None:
        self.domains = domains
        self.random = np.random.default_rng(seed)
        self.attempts: dict[tuple[int, int], Carried] = {}
        self.heard: dict[tuple[tuple[int, int], str], dict[str, Any]] = {}
        self.left: dict[tuple[tuple[int, int], str], bytes] = {}
        self.said: dict[tuple[tuple[int, int], str], Unmasking] = {}
        self.refused = 0

    def act(self) -> None:
        """A restart of a domain, the next step at all of them, or any step at one."""
        name, luck = str(self.random.choice(NAMES)), self.random.random()
        where = self._attempt()
        if luck < 0.03 and self.restarts():
            self.domains.restart(name)
            self.domains.open(name)
        elif luck < 0.4:
            following = min((self._next(where, each) for each in NAMES), key=STEPS.index)
            for each in NAMES:
                self._call(where, each, following)
        else:
            self._call(where, name, str(self.random.choice(STEPS)))

    def restarts(self) -> bool:
        """Whether domains do."""
        return True

    def _call(self, where: tuple[int, int], name: str, step: str) -> None:
        try:
            self._hear(where, name, step, self._ask(where, name, step))
        except REFUSALS:
            self.refused += 1

    def _attempt(self) -> tuple[int, int]:
        """Mostly the last one, sometimes another, sometimes the next or one far ahead."""
        luck = self.random.random()
        if not self.attempts or luck < 0.05:
            release = int(self.random.integers(RELEASES - 1))
            numbers = [attempt for r, attempt in self.attempts if r == release]
            where = release, max(numbers, default=-1) + int(self.random.choice([1, 1, 1, 9]))
            self.attempts[where] = Carried(self.domains, *where)
            return where
        known = list(self.attempts)
        return known[-1] if luck < 0.85 else known[int(self.random.integers(len(known)))]

    def _next(self, where: tuple[int, int], name: str) -> str:
        done = {step for step in STEPS if name in self.heard.get((where, step), {})}
        return next((step for step in STEPS if step not in done and step != "masked"), "unmask")

    def _told(self, where: tuple[int, int], step: str) -> dict[str, Any]:
        """What was said in that step: of this attempt, or now and then of any other."""
        if self.random.random() < 0.05:
            known = list(self.attempts)
            where = known[int(self.random.integers(len(known)))]
        found = dict(self.heard.get((where, step), {}))
        if found and self.random.random() < 0.05:
            found.pop(str(self.random.choice(list(found))))
        return found

    def _ask(self, where: tuple[int, int], name: str, step: str) -> Any:
        carried, part = self.attempts[where], self.domains.parts[name]
        if step == "advertise":
            return carried.ask(name, step, None)
        if step == "share":
            state = b"nothing" if self.random.random() < 0.05 else STATE
            adverts = list(self._told(where, "advertise").values())
            held = carried.heads.held_of(name)
            sealed, carried.heads.notes[name] = part.share(*carried.where, adverts, state, held)
            return sealed
        if step == "reveal":
            dealt = [each for said in self._told(where, "share").values() for each in said]
            return carried.ask(name, step, [each for each in dealt if each.receiver == name])
        if step == "masked":
            return part.revealed(*carried.where)
        if step == "confirm":
            return carried.ask(name, step, list(self._told(where, "reveal").values()))
        return carried.ask(name, step, list(self._told(where, "confirm").values()))

    def _hear(self, where: tuple[int, int], name: str, step: str, answer: Any) -> None:
        if step in ("reveal", "masked"):
            self._check_charged(where, name, answer)
            step, answer = "reveal", answer[0]
        if step == "unmask":
            assert self.said.setdefault((where, name), answer) == answer, "it said two things"
            assert not set(answer.seed_shares) & set(answer.key_shares)
        self.heard.setdefault((where, step), {})[name] = answer

    def _check_charged(
        self, where: tuple[int, int], name: str, answer: tuple[Receipt, NDArray]
    ) -> None:
        receipt, elements = answer
        digest = digest_of(elements)
        assert receipt.digest == digest
        assert self.left.setdefault((where, name), digest) == digest, "two masked inputs left"
        share = hashlib.sha256(digest).hexdigest()
        assert share in self.charges(name, where), "a masked input left that isn't charged"

    def charges(self, name: str, where: tuple[int, int]) -> list[str]:
        """What a domain's ledger says it charged in an attempt."""
        with self.domains.ledgers[name]._database.reading() as connection:
            rows = connection.exec_driver_sql(
                "SELECT release, attempt, state, share FROM ledgerattempt"
            ).all()
        return [row[3] for row in rows if (row[0], row[1], row[2]) == (*where, "charged")]


@contextmanager
def every_noise_once(domains: Domains, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """While it lasts, no noise may be in two vectors that are masked."""
    seen: set[bytes] = set()
    mask: Callable[..., Any] = Party.mask

    def recorded(party: Party, value: NDArray[np.int64], sealed: Any) -> Any:
        noise, alive = value - domains.values[party.me], party._secrets is not None
        answer = mask(party, value, sealed)
        if alive:
            assert noise.any()
            assert noise.tobytes() not in seen, "noise was used twice"
            seen.add(noise.tobytes())
        return answer

    with patch.context() as context:
        context.setattr(Party, "mask", recorded)
        yield


@pytest.mark.parametrize("seed", range(3))
def test_no_order_of_calls_gets_anything_uncharged_or_twice(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(aggregation, "apply", recorder.apply)
    domains = domains_in(tmp_path, releases=RELEASES)
    hub = AnyOrder(domains, seed)
    with every_noise_once(domains, monkeypatch):
        for _ in range(250):
            hub.act()
    assert len(hub.left) > 5
    assert hub.said
    assert hub.refused > 50
    for where, name in hub.left:
        assert len(hub.charges(name, where)) == 1, "nothing that left was given back"
    domains.round(RELEASES - 1)
