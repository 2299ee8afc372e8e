"""Every byte that leaves the nodes during a run, decoded as far as anyone on the wire can."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from syft.client.api import SyftAPIData
from syft.serde.deserialize import _deserialize

import coterie as ct
from network.client import NodeRefused
from network.envelope import open_envelope
from network.rounds import attempt_folder
from network.smpc import ring
from network.smpc.agreement import agreement_of
from network.smpc.inputs import masked_bytes
from network.smpc.transcript import verify_transcript
from network.streams import Refused, read_answer
from policies.mechanism import clip, quantise
from policies.plan import Plan, Step
from tests.network_of_three import ITEMS, NAMES, Network, counting_plan, interactions
from tests.wire import Message, Wire

pytestmark = pytest.mark.nodes
PHASES = {"advertise", "share", "reveal", "confirm", "unmask"}


@pytest.fixture(scope="module")
def recorded(
    network: Network, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Plan, list[Message], ct.Run]:
    """A private run from submission to its end, over a tapped wire."""
    folder = tmp_path_factory.mktemp("transcript")
    urls = {name: node.url for name, node in network.federation.nodes.items()}
    with Wire(urls) as wire:
        accounts = wire.accounts(network.home.accounts, folder / "accounts.json")
        federation = ct.connect(accounts, key=network.home.scientist_key)
        plan = counting_plan(federation.data("interactions"), "recorded", 1.0)
        federation.submit(plan)
        bound = federation.bind(plan)
        network.approve(bound.hash)
        run = federation.train(plan, folder / "run")
        with pytest.raises(NodeRefused):
            federation.nodes["east"].call("recommend", user="east-3")
    return bound, wire.messages, run


def test_every_call_of_the_run_went_over_the_tapped_wire(recorded) -> None:
    _, messages, _ = recorded
    for name in NAMES:
        called = {message.method for message in messages if message.node == name}
        assert {"describe", "submit", "plan", "open", *PHASES} <= called


def test_no_private_row_or_id_is_in_any_answer(recorded) -> None:
    _, messages, _ = recorded
    ids = {user.encode() for name in NAMES for user in interactions(name)["user"]}
    for message in messages:
        assert not any(user in message.answer for user in ids), message.method


def test_no_exact_sum_is_in_any_answer_in_any_number_format(recorded) -> None:
    """Two neighbouring entries of a domain's sum, or of all domains', as they would be written."""
    plan, messages, _ = recorded
    step = plan.steps[0]
    exact = [exact_sum(name, step) for name in NAMES]
    for total in [*exact, np.sum(exact, axis=0)]:
        for needle in needles(total, step.scale):
            assert not any(needle in message.answer for message in messages)


def test_arrays_leave_in_the_reveal_only_and_each_looks_uniform(recorded) -> None:
    plan, messages, _ = recorded
    found = [m for m in messages for _ in arrays_in(value_of(m))]
    assert {m.method for m in found} == {"reveal"}
    assert len(found) == len(NAMES) * plan.steps[0].releases
    for message in found:
        assert_uniform(masked_in(plan, message))


def test_no_domains_masked_inputs_together_show_anything(recorded) -> None:
    """Not two, and not all three: what opens them comes only after all domains confirmed."""
    plan, messages, _ = recorded
    for masked in rounds_of(plan, messages):
        for left_out in NAMES:
            pair = [masked[name] for name in NAMES if name != left_out]
            assert_uniform(pair[0] + pair[1])
            assert_uniform(pair[0] - pair[1])
        assert_uniform(masked["east"] + masked["north"] + masked["south"])


def test_no_domain_gives_shares_of_a_survivors_mask_key(recorded) -> None:
    _, messages, _ = recorded
    answers = [json.loads(value_of(m)) for m in messages if m.method == "unmask"]
    assert {answer["domain"] for answer in answers} == set(NAMES)
    for answer in answers:
        assert set(answer["seed_shares"]) == set(NAMES)
        assert answer["key_shares"] == {}


def test_what_the_round_opens_is_noised_and_differs_every_round(recorded) -> None:
    plan, _, run = recorded
    step = plan.steps[0]
    exact = np.sum([exact_sum(name, step) for name in NAMES], axis=0)
    noises = []
    for release in range(step.releases):
        agreement = agreement_of(plan, step.name, release, 0)
        total = verify_transcript(agreement, attempt_folder(run.folder, step.name, release, 0))
        noises.append((total - exact) / (step.noise_multiplier * step.clip_norm * step.scale))
    for noise in noises:
        # 30 normal samples of deviation at least 1 (1.22 with all three shares): their root mean
        # square is below 0.4 or above 2.5 with probability under 1e-6.
        assert 0.4 < np.sqrt(np.mean(noise**2)) < 2.5
    assert not np.array_equal(noises[0], noises[1])


def test_the_run_calls_known_methods_only(recorded) -> None:
    _, messages, _ = recorded
    setting_up = {"describe", "submit", "plan", "open"}
    rounds = {*PHASES, "progress", "finish", "recommend"}
    called = {m.method for m in messages if not m.method.startswith("/")}
    assert called == setting_up | rounds


def value_of(message: Message) -> Any:
    """What a client makes of an answer; unsigned ones (metadata, login) are left as bytes."""
    if message.method.startswith("/"):
        return message.answer
    if message.streamed:
        try:
            return read_answer(message.answer)
        except Refused as refusal:
            return str(refusal)
    result = _deserialize(open_envelope(message.answer).message, from_bytes=True)
    result = result.data if isinstance(result, SyftAPIData) else result
    return getattr(result, "value", result)


def arrays_in(value: Any) -> list[NDArray]:
    return [value] if isinstance(value, np.ndarray) else []


def masked_in(plan: Plan, message: Message) -> ring.Elements:
    agreement = agreement_of(plan, "count", 0, 0)
    frame = value_of(message)[: masked_bytes(agreement)]
    return ring.unpack(frame.tobytes(), agreement.length, agreement.bits)


def rounds_of(plan: Plan, messages: list[Message]) -> list[dict[str, ring.Elements]]:
    """The masked inputs of each round, by domain."""
    revealed: dict[str, list[ring.Elements]] = {name: [] for name in NAMES}
    for message in messages:
        if message.method == "reveal":
            revealed[message.node].append(masked_in(plan, message))
    return [
        dict(zip(NAMES, shares, strict=True)) for shares in zip(*revealed.values(), strict=True)
    ]


def exact_sum(name: str, step: Step) -> NDArray[np.int64]:
    """A domain's clipped and quantised sum without noise, from its rows: int64 [ITEMS]."""
    rows = []
    for _, hers in interactions(name).groupby("user"):
        row = torch.zeros(ITEMS)
        row[hers["item"].str.removeprefix("item-").astype(int).to_numpy()] = 1.0
        rows.append(row)
    units = quantise(clip([torch.stack(rows)], step.clip_norm), step.clip_norm, step.scale)
    total: NDArray[np.int64] = units.sum(0, dtype=torch.int64).numpy()
    return total


def needles(total: NDArray[np.int64], scale: int) -> list[bytes]:
    """Pairs of neighbouring entries as int64, float64 and float32, scaled and not."""
    real = total / scale
    forms = [total, total.astype(np.float64), real, total.astype(np.float32), real.astype("f4")]
    return [form[i : i + 2].tobytes() for form in forms for i in range(len(total) - 1)]


def assert_uniform(words: ring.Elements) -> None:
    """Of 30 uniform words at least 960 fair bits: 6 deviations off has probability 2e-9."""
    bits = np.unpackbits(words.view(np.uint8))
    assert abs(int(bits.sum()) - bits.size / 2) < 6 * np.sqrt(bits.size / 4)
    # A small number, of either sign, repeats its sign in the upper bits.
    width = 8 * words.dtype.itemsize
    assert np.median(np.abs(ring.from_ring(words).astype(float))) > 2 ** (width - 6)
