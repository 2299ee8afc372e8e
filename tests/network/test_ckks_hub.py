"""Under CKKS: a hub that hands the key holder another sum, or replays, opens nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from network.smpc.ckks import seal, tags
from network.smpc.ckks.messages import (
    Opening,
    TaggedConfirmation,
    challenge_of,
    confirmation_message,
    key_holder,
    set_message,
    transcript_hash,
)
from network.smpc.ckks.transcript import (
    sum_of,
)
from network.smpc.coordination import SumAborted
from network.smpc.masks import digest_of
from network.smpc.messages import SharingRefused
from tests.network.roster_of_domains import Domains


def holder_of(domains: Domains) -> str:
    return key_holder(domains.agreement)


def single(domains: Domains, inputs: dict[str, Any]) -> seal.Residues:
    """One domain's ciphertexts instead of the sum."""
    return next(iter(inputs.values()))[1].copy()


def tripled(domains: Domains, inputs: dict[str, Any]) -> seal.Residues:
    total = added(domains, inputs)
    for _ in range(2):
        seal.add(total, added(domains, inputs))
    return total


def without_one(domains: Domains, inputs: dict[str, Any]) -> seal.Residues:
    return added(domains, dict(list(inputs.items())[1:]))


def one_twice(domains: Domains, inputs: dict[str, Any]) -> seal.Residues:
    total = added(domains, inputs)
    seal.add(total, single(domains, inputs))
    return total


def one_residue_off(domains: Domains, inputs: dict[str, Any]) -> seal.Residues:
    total = added(domains, inputs)
    total[-1, 1, -1] = (int(total[-1, 1, -1]) + 1) % seal.modulus()
    return total


def zeros(domains: Domains, inputs: dict[str, Any]) -> seal.Residues:
    return np.zeros_like(single(domains, inputs))


def key_probe(domains: Domains, inputs: dict[str, Any]) -> seal.Residues:
    """(0, constant): decrypts to a multiple of the secret key."""
    total = zeros(domains, inputs)
    total[:, 1, :] = 2**40
    return total


SUMS = [single, tripled, without_one, one_twice, one_residue_off, zeros, key_probe]


def added(domains: Domains, inputs: dict[str, Any]) -> seal.Residues:
    return sum_of(domains.agreement, {n: answer[1] for n, answer in inputs.items()})[0]


def other_sum(
    domains: Domains, forge: Callable[..., seal.Residues], said: bool, ally: str | None = None
) -> Callable[..., dict[str, Any]]:
    """A hub that hands the key holder another sum than the right one.

    Args:
        said: it also tells all domains, when they confirm, that this is the sum.
        ally: a domain that gives the tag that makes up the difference.
    """
    inputs: dict[str, Any] = {}

    def exchange(phase: str, arguments: dict) -> dict:
        if phase == "confirm" and said:
            digest = digest_of(forge(domains, inputs).ravel())
            arguments = {n: (receipts, digest) for n, (receipts, _) in arguments.items()}
        if phase == "unmask":
            forged = forge(domains, inputs)
            if ally is not None:
                made_up = tag_that_fits(domains, arguments[ally][0], forged, inputs, ally)
                arguments = {n: (made_up, total) for n, (_, total) in arguments.items()}
            arguments = {n: (c, None if t is None else forged) for n, (c, t) in arguments.items()}
        answers = domains.exchange(phase, arguments)
        if phase == "reveal":
            inputs.update(answers)
        return answers

    return exchange


def tag_that_fits(
    domains: Domains, confirmations: Any, forged: seal.Residues, inputs: dict, ally: str
) -> list[TaggedConfirmation]:
    adverts = {s.domain: s for s in domains.said if hasattr(s, "public_key")}
    heard = transcript_hash(domains.agreement, adverts)
    message = set_message(
        heard, {n: answer[0] for n, answer in inputs.items()}, digest_of(forged.ravel())
    )
    rest = tags.add_tags([c.tag for c in confirmations if c.domain != ally])
    wanted = tags.tag_of(challenge_of(message), forged)
    words = [np.frombuffer(tag, dtype="<u8") for tag in (wanted, rest)]
    tag = b"".join(
        ((int(a) - int(b)) % seal.modulus()).to_bytes(8, "little")
        for a, b in zip(*words, strict=True)
    )
    signature = domains.keys[ally].sign(confirmation_message(message, ally, tag))
    lie = TaggedConfirmation(
        domain=ally, total=digest_of(forged.ravel()), tag=tag, signature=signature
    )
    return [lie if c.domain == ally else c for c in confirmations]


@pytest.mark.parametrize("forge", SUMS, ids=lambda forge: forge.__name__)
@pytest.mark.parametrize("said", [False, True])
def test_the_key_holder_opens_no_other_sum_for_a_hub(
    forge: Callable[..., seal.Residues], said: bool
) -> None:
    domains = Domains(3, 3, 1, aggregation="ckks")
    with pytest.raises(SumAborted):
        domains.run(other_sum(domains, forge, said))
    [(name, error)] = domains.refusals
    assert name == holder_of(domains)
    assert isinstance(error, SharingRefused)
    assert error.culprit == "the coordinator"
    assert not any(isinstance(s, tuple) and isinstance(s[0], Opening) for s in domains.said)


def test_a_domain_that_helps_the_hub_can_have_another_sum_opened_but_only_one() -> None:
    """What the tags don't stop, and why every domain is noised and charged as if alone."""
    domains = Domains(3, 3, 1, aggregation="ckks")
    ally = next(name for name in domains.keys if name != holder_of(domains))
    with pytest.raises(SumAborted):
        domains.run(other_sum(domains, single, True, ally))
    opened = [s for s in domains.said if isinstance(s, tuple) and isinstance(s[0], Opening)]
    assert len(opened) == 1
    np.testing.assert_array_equal(opened[0][1], domains.values["domain-0"])


def test_ciphertexts_that_arent_integers_are_not_opened_and_end_the_key() -> None:
    """Even with a domain's help, a hub can't ask about the key: (0, c) decrypts to s c."""
    domains = Domains(3, 3, 1, aggregation="ckks")
    ally = next(name for name in domains.keys if name != holder_of(domains))
    with pytest.raises(SumAborted):
        domains.run(other_sum(domains, key_probe, True, ally))
    [(_, refused)] = domains.refusals
    assert "decrypts to numbers that aren't integers" in str(refused)
    assert "held" not in domains.disks[holder_of(domains)]


@pytest.mark.parametrize("phase", ["share", "reveal", "confirm", "unmask"])
def test_messages_of_another_attempt_are_refused(phase: str) -> None:
    domains = Domains(3, 3, 1, aggregation="ckks")
    earlier: dict[str, Any] = {}

    def listen(phase: str, arguments: dict) -> dict:
        earlier[phase] = arguments
        return domains.exchange(phase, arguments)

    domains.run(listen)
    domains.attempt(1)

    def replay(asked: str, arguments: dict) -> dict:
        return domains.exchange(asked, earlier[asked] if asked == phase else arguments)

    with pytest.raises(SumAborted):
        domains.run(replay)
    assert domains.refusals


def test_a_set_smaller_than_tau_is_not_confirmed() -> None:
    domains = Domains(5, 4, 2, aggregation="ckks")

    def fewer(phase: str, arguments: dict) -> dict:
        if phase == "confirm":
            arguments = {n: (receipts[:3], total) for n, (receipts, total) in arguments.items()}
        return domains.exchange(phase, arguments)

    with pytest.raises(SumAborted):
        domains.run(fewer)


def test_a_public_key_from_someone_else_or_beyond_its_moduli_is_refused() -> None:
    domains = Domains(3, 3, 1, aggregation="ckks")
    holder = holder_of(domains)
    for public in (b"", b"\xff" * seal.PUBLIC_KEY_BYTES, seal.generate()[1]):
        domains.attempt(0)

        def swap(phase: str, arguments: dict, public: bytes = public) -> dict:
            answers = domains.exchange(phase, arguments)
            if phase == "advertise":
                answers[holder] = answers[holder].model_copy(update={"public_key": public})
            return answers

        with pytest.raises(SumAborted) as caught:
            domains.run(swap)
        assert caught.value.domain == holder
