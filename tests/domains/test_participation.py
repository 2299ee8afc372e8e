"""What a domain takes in a round: the step's tensors, only values; what becomes of an attempt."""

from pathlib import Path
from tempfile import TemporaryFile
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from domains.attempts import Attempts
from domains.enclosure import EngineOverdue
from domains.refusals import RoundRefused
from domains.states import read_state
from network.program import DataSet, Plan, Sum
from network.smpc.attempt import Context
from policies.accounting import Event
from policies.approvals import owner_key_hex, sign_approval
from policies.ledger import AttemptsExhausted, Ledger
from policies.plan import RosterEntry, Step
from policies.sensitivity import TensorRefused
from tests.domains.participating_domains import NAMES, STATE, arrays_of, domains_in


@pytest.fixture(scope="module")
def step() -> Step:
    def count(state, user):  # type: ignore[no-untyped-def]
        return {"sum": (user.mask * state["on"].float()).sum()}

    data = DataSet("clicks", 12, 6, 300, "0" * 64, False)
    roster = [
        RosterEntry(name=n, server_uid=n * 32, node_key=k * 64, owner_key=k * 64)
        for n, k in (("a", "1"), ("b", "2"), ("c", "3"))
    ]
    state = {"on": torch.ones(6, dtype=torch.bool)}
    return Plan("p", "p", data, [Sum("s", count, 1.0)], state).bind(roster, "0" * 64).steps[0]


def taken(step: Step, content: bytes) -> dict[str, NDArray]:
    with TemporaryFile() as file:
        file.write(content)
        file.flush()
        return arrays_of(read_state(step, file))


def test_the_steps_own_tensors_are_taken(step: Step) -> None:
    given = np.array([1, 0, 1, 1, 0, 0], dtype=bool)
    assert np.array_equal(taken(step, safetensors.numpy.save({"on": given}))["on"], given)


def test_a_truth_value_is_0_or_1(step: Step) -> None:
    honest = safetensors.numpy.save({"on": np.ones(6, dtype=bool)})
    assert honest.endswith(b"\x01" * 6)
    with pytest.raises(RoundRefused, match="truth values other than 0 and 1"):
        taken(step, honest[:-1] + b"\xc8")


def _framed(header: bytes, octets: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + octets


def _one(shape: str, offsets: str, kind: str = "BOOL") -> bytes:
    return f'{{"on":{{"dtype":"{kind}","shape":{shape},"data_offsets":{offsets}}}}}'.encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04K\x01.",
        b"\xff" * 64,
        _framed(b"[]"),
        _framed(b"[" * 2**16),
        _framed(_one("[6]", "[0,6]"), b"\x01" * 5),
        _framed(_one("[6]", "[0,6]"), b"\x01" * 7),
        _framed(_one("[6]", "[1,7]"), b"\x01" * 7),
        _framed(_one("[6]", "[0,5]"), b"\x01" * 6),
        _framed(_one("[-6]", "[0,-6]"), b"\x01" * 6),
        _framed(_one("[6.0]", "[0,6]"), b"\x01" * 6),
        _framed(_one("[true,6]", "[0,6]"), b"\x01" * 6),
        _framed(_one(str([9**9] * 40), "[0,6]"), b"\x01" * 6),
        _framed(_one("[6]", "[0,6]", "F128"), b"\x01" * 6),
        _framed(_one("6", "[0,6]"), b"\x01" * 6),
        _framed(b'{"on":{"dtype":[],"shape":[6],"data_offsets":[0,6]}}', b"\x01" * 6),
        _framed(b'{"on":7}'),
    ],
    ids=range(17),
)
def test_what_is_no_safetensors_is_refused(step: Step, content: bytes) -> None:
    with pytest.raises(RoundRefused, match="not safetensors"):
        taken(step, content)


def test_another_state_is_refused(step: Step) -> None:
    for given in ({}, {"on": np.ones(5, dtype=bool)}, {"on": np.ones(6, dtype=np.float32)}):
        with pytest.raises(RoundRefused, match="takes the state"):
            taken(step, safetensors.numpy.save(given))


def test_an_attempt_whose_end_was_seen_is_spent_and_shares_nothing(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", "north", Ed25519PrivateKey.generate())
    ledger.open_budget("people", 8.0, 1e-5)
    plan_hash, owner = "a" * 64, Ed25519PrivateKey.generate()
    ledger.submit(plan_hash, "p", "she", "people", [Event(4.0, 1.0, 2)], {}, spare_attempts=1)
    signature = sign_approval(owner, plan_hash, "north")
    ledger.approve(plan_hash, "owner", owner_key_hex(owner), signature, "b" * 64)
    attempts, context = Attempts(ledger, tmp_path), Context(plan_hash, "s", 0, 0)
    ledger.reserve(plan_hash, "s", 0, 0, Event(4.0, 1.0, 1))
    attempts.files(context).write("held", b"secret")
    attempts.spend(context)
    assert attempts.state_of(context) == "charged"
    assert attempts.files(context).read("held") is None
    attempts.void(context, "never given back")
    assert attempts.state_of(context) == "charged"
    ledger.reserve(plan_hash, "s", 0, 1, Event(4.0, 1.0, 1))
    attempts.spend(Context(plan_hash, "s", 0, 1))
    with pytest.raises(AttemptsExhausted, match="spare attempts"):
        ledger.reserve(plan_hash, "s", 0, 2, Event(4.0, 1.0, 1))


def test_a_sharing_over_its_deadline_is_charged_and_not_repeated_for_ever(tmp_path: Path) -> None:
    domains = domains_in(tmp_path, releases=2, kept=True)
    plan_hash, ledger, part = domains.plan.hash, domains.ledgers["east"], domains.parts["east"]

    def overdue(*_: Any) -> None:
        raise EngineOverdue("it took too long")

    def share(number: int) -> None:
        keys = []
        for name in NAMES:
            with domains.parts[name].tensors(plan_hash) as tensors:
                keys.append(tensors.key("s", number))
        with part.tensors(plan_hash) as tensors:
            tensors.share("s", number, keys, STATE)

    def hurry() -> None:
        slow: Any = SimpleNamespace(alive=True, private_sum=overdue, close=lambda: None)
        part._open_runs.of(plan_hash)._enclosure = slow

    share(0)
    assert ledger.attempts(plan_hash) == []
    for number in range(1, 4):
        hurry()
        with pytest.raises(RoundRefused, match="took too long"):
            share(number)
    charged = [("s", 0, 0, "charged"), ("s", 0, 1, "charged"), ("s", 1, 0, "charged")]
    assert sorted(tuple(each) for each in ledger.attempts(plan_hash)) == charged
    with pytest.raises(TensorRefused, match="computed 4 times"):
        share(4)
