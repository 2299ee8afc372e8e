"""A hub and peers that lie: nothing is learned, no wrong sum opens, and the liar is named where
the protocol can.

"Nothing is learned" is checked on what the honest domains gave away: for no domain does the
coalition of the hub and t peers get both tau shares of its self-mask seed and tau of its mask key
(Bonawitz et al. 2017, theorem 6.5), and for no domain short of a confirmed set of tau survivors.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from network.smpc import ring, shamir
from network.smpc.aggregation import OutOfTurn
from network.smpc.coordination import Coordinator, Opened, SumAborted
from network.smpc.inputs import coming_masked, masked_file, take_masked
from network.smpc.messages import (
    RECEIPT_BYTES,
    MalformedMessage,
    Receipt,
    SharingRefused,
    confirmation_message,
    pack_masked,
    share_digest,
    transcript_hash,
    unmasking_message,
)
from network.smpc.transcript import open_total
from tests.network.lies import HONEST, HUB, LIAR, PEER, Attack, Tamper
from tests.network.roster_of_domains import Domains


def attacked(phase: str, change: Tamper, whom: str, answers: bool) -> tuple[Attack, Any]:
    domains = Domains(8, 6, 2)
    earlier = {}

    def listening(step: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        found = domains.exchange(step, arguments)
        if step == "advertise":
            earlier.update({"advert": found[LIAR], "own advert": found[HONEST]})
        if step == "share":
            earlier["sealed"] = next(s for s in found[LIAR] if s.receiver == HONEST)
        return found

    domains.run(listening)
    attack = Attack(domains.attempt(1), phase, change, whom, answers, earlier)
    coordinator = Coordinator(domains.agreement, attack.exchange, domains.left_out)
    try:
        result: Any = coordinator.finish(coordinator.begin())
    except SumAborted as aborted:
        result = aborted
    attack.earlier["left out"] = coordinator.left_out
    return attack, result


def check(attack: Attack, result: Any, culprit: str | None) -> None:
    domains = attack.domains
    if isinstance(result, Opened):
        np.testing.assert_array_equal(result.total, domains.sum_of(result.survivors))
        assert len(result.survivors) >= domains.threshold
        blamed = set(result.left_out)
    else:
        blamed = {result.domain}
    blamed |= domains.culprits() | set(attack.earlier["left out"])
    if culprit is not None:
        assert culprit in blamed
    assert_nothing_learned(domains)
    attack.coalition.assert_nothing_is_learned()


def assert_nothing_learned(domains: Domains, colluding: int = 2) -> None:
    """No domain's seed and mask key can both be opened, and nothing without tau survivors."""
    answers = domains.unmaskings()
    for name in domains.keys:
        seeds = sum(name in answer.seed_shares for answer in answers) + colluding
        keys = sum(name in answer.key_shares for answer in answers) + colluding
        assert seeds < domains.threshold or keys < domains.threshold
    for answer in answers:
        assert len(answer.seed_shares) >= domains.threshold
        assert not set(answer.seed_shares) & set(answer.key_shares)


@pytest.mark.parametrize(("phase", "change", "culprit"), HUB, ids=[c.__name__ for _, c, _ in HUB])
def test_a_lying_hub_learns_nothing(phase: str, change: Tamper, culprit: str | None) -> None:
    attack, result = attacked(phase, change, HONEST, answers=False)
    check(attack, result, culprit)
    refused = any(name == HONEST for name, _ in attack.domains.refusals)
    # Told of fewer peers, an honest domain answers for another transcript, which fits nobody's.
    assert refused or HONEST in attack.earlier["left out"], "the lie was taken"


@pytest.mark.parametrize(("phase", "change", "culprit"), PEER, ids=[c.__name__ for _, c, _ in PEER])
def test_a_lying_peer_learns_nothing_and_is_named(
    phase: str, change: Tamper, culprit: str | None
) -> None:
    attack, result = attacked(phase, change, LIAR, answers=True)
    check(attack, result, culprit)
    if phase in ("confirm", "unmask"):
        assert isinstance(result, Opened), "six of the seven others open the sum"
        assert set(result.left_out) == {LIAR}


def test_two_sets_of_survivors_are_never_both_opened() -> None:
    """The hub splits eight domains in two camps, and two peers sign for both."""
    domains = Domains(8, 6, 2)
    camps: dict[str, list[Any]] = {}

    def split(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if phase == "confirm":
            receipts = next(iter(arguments.values()))
            camps["a"], camps["b"] = receipts[:6], receipts[2:]
            first = {n: camps["a"] for n in arguments if int(n[-1]) < 4}
            return domains.exchange(phase, first | {
                n: camps["b"] for n in arguments if int(n[-1]) >= 4
            })  # fmt: skip
        return domains.exchange(phase, arguments)

    with pytest.raises(SumAborted):
        domains.run(split)
    assert not domains.unmaskings(), "no honest domain unmasks for a set that tau didn't sign"


def test_a_domain_never_confirms_a_second_set() -> None:
    domains = Domains(8, 6, 2)
    heard: list[Receipt] = []

    def listen(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        if phase == "confirm":
            heard.extend(next(iter(arguments.values())))
        return domains.exchange(phase, arguments)

    domains.run(listen)
    domains.parties[HONEST] = domains.restarted(HONEST)
    with pytest.raises(OutOfTurn, match="another set"):
        domains.ask(HONEST, "confirm", heard[:-1])
    assert "held" not in domains.disks[HONEST], "shares are erased once they are answered"


def test_a_dealer_whose_shares_dont_belong_together_is_named() -> None:
    """A peer deals shares of one seed and commits to another; all it says is signed."""
    domains = Domains(3, 3, 1)
    party = domains.parties[LIAR]

    def lie(phase: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answers = domains.exchange(phase, arguments)
        if phase == "advertise":
            party._secrets.seed[:] = bytes(32)  # type: ignore[union-attr]
        return answers

    with pytest.raises(SumAborted) as aborted:
        domains.run(lie)
    assert aborted.value.domain == LIAR
    assert "don't belong" in str(aborted.value)


def test_a_lie_in_a_share_is_pinned_on_who_signed_it() -> None:
    domains = Domains(3, 3, 1)
    opened = domains.run()
    transcript = opened.transcript
    message = _confirmed(domains, transcript)
    (i,) = [i for i, u in enumerate(transcript.unmaskings) if u.domain == LIAR]
    unmaskings = list(transcript.unmaskings)
    shares = {**unmaskings[i].seed_shares, HONEST: bytes(shamir.SHARE_BYTES)}
    signature = domains.keys[LIAR].sign(unmasking_message(message, LIAR, shares, {}))
    unmaskings[i] = unmaskings[i].model_copy(update={"seed_shares": shares, "signature": signature})
    forged = replace(transcript, unmaskings=unmaskings)
    with pytest.raises(SharingRefused, match="signed another share") as refused:
        open_total(domains.agreement, forged, opened.masked)
    assert refused.value.culprit == LIAR


def _confirmed(domains: Domains, transcript: Any) -> bytes:
    heard = transcript_hash(domains.agreement, {a.domain: a for a in transcript.adverts})
    return confirmation_message(heard, {r.domain: r for r in transcript.receipts})


@pytest.mark.parametrize("bits", [32, 64])
def test_masked_inputs_of_another_ring_or_shape_are_refused(bits: int, tmp_path: Path) -> None:
    domains = Domains(3, 3, 1, bits=bits)
    opened = domains.run()
    receipt, elements = opened.transcript.receipts[0], opened.masked[HONEST]
    packed = pack_masked(receipt, elements).whole()
    kept = masked_file(tmp_path, domains.agreement, HONEST)

    def taken(content: np.ndarray) -> Any:
        with closing(coming_masked(tmp_path, domains.agreement, HONEST)) as coming:
            coming.write(content.tobytes())
        return take_masked(domains.agreement, coming)

    assert taken(packed)[0] == receipt
    np.testing.assert_array_equal(ring.unpack(kept.read_bytes(), 16, bits), elements)
    before, head = kept.read_bytes(), ring.HEADER_BYTES + elements.nbytes
    other = elements.astype(np.uint64 if bits == 32 else np.uint32)
    longest = np.zeros(RECEIPT_BYTES, np.uint8)
    others = [pack_masked(receipt, given).whole() for given in (other, elements[1:])]
    for bad in (*others, packed[:-1], packed[:head], packed[:3], packed[:0],
                np.append(packed, packed[:1]), np.append(packed, longest),
                np.append(packed[:head], longest)):  # fmt: skip
        with pytest.raises(MalformedMessage):
            taken(bad)
    with pytest.raises(SharingRefused, match="isn't the one it signed"):
        taken(pack_masked(receipt, elements + 1).whole())
    assert kept.read_bytes() == before, "what is refused replaces nothing"


def test_a_share_digest_names_dealer_and_holder() -> None:
    one = share_digest(b"t", b"seed", "a", "b", b"s")
    assert one != share_digest(b"t", b"seed", "b", "a", b"s")
    assert one != share_digest(b"t", b"key", "a", "b", b"s")
