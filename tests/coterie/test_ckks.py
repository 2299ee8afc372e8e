"""Plans summed under CKKS on real nodes: what leaves, who opens, and what a crash does."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import coterie as ct
from coterie.cli import app
from coterie.exit_codes import ExitCode
from coterie.partners import start_domain
from coterie.processes import running
from coterie.scripts import Script
from network.rounds import attempt_folder, verify_rounds
from network.smpc.agreement import agreement_of
from network.smpc.ckks.messages import key_holder, unpack_opening
from network.smpc.ckks.transcript import verify_ckks_transcript
from network.training import RunInterrupted
from network.updates import noise_std
from policies.plan import Plan
from policies.verify import verify
from tests.coterie.test_transcript import value_of
from tests.network_of_three import ITEMS, NAMES, Network, counting_plan, interactions
from tests.wire import Message, Wire

pytestmark = pytest.mark.nodes
ROOT = Path(__file__).parents[2]


def keys_on_disk(network: Network) -> set[Path]:
    return {path for name in NAMES for path in network.home.domain(name).path.rglob("*.held")}


@pytest.fixture(scope="module")
def others_keys(network: Network) -> set[Path]:
    """Of attempts that other tests left open."""
    return keys_on_disk(network)


@pytest.fixture(scope="module")
def recorded(
    network: Network, others_keys: set[Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Plan, list[Message], Path]:
    """A run over a tapped wire whose key holder dies after it gave its ciphertexts."""
    folder = tmp_path_factory.mktemp("ckks")
    urls = {name: node.url for name, node in network.federation.nodes.items()}
    with Wire(urls) as wire:
        accounts = wire.accounts(network.home.accounts, folder / "accounts.json")
        federation = ct.connect(accounts, key=network.home.scientist_key)
        data = federation.data("interactions")
        plan = counting_plan(data, "recorded under ckks", 0.5, aggregation="ckks")
        federation.submit(plan)
        bound = federation.bind(plan)
        network.approve(bound.hash)
        victim = key_holder(agreement_of(bound, "count", 0, 0))

        def kill() -> None:
            pid = running(network.home.domain(victim).pid_file)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

        wire.acts["after", victim, "reveal"] = kill
        with pytest.raises(RunInterrupted, match=f"{victim} was lost in count 0"):
            federation.train(plan, folder / "run")
        start_domain(network.home, victim, None)
        run = federation.train(plan, folder / "run")
        assert run.finished
    network.connect()
    return bound, wire.messages, folder / "run"


def test_a_key_holder_that_died_opens_the_charged_attempt_when_it_is_back(
    network: Network, recorded: tuple
) -> None:
    plan, _, folder = recorded
    assert verify_rounds(plan, folder) == [("count", release, 0) for release in range(3)]
    for name in NAMES:
        assert network.charged(name, plan.hash) == [("count", release, 0) for release in range(3)]
        assert verify(network.home.domain(name).ledger_file).ok


def test_only_the_key_holder_opens_and_what_it_gives_is_a_total_in_integers(
    recorded: tuple,
) -> None:
    plan, messages, _ = recorded
    holders = []
    for message in messages:
        if message.method == "unmask" and isinstance(value_of(message), np.ndarray):
            opening, total = unpack_opening(agreement_of(plan, "count", 0, 0), value_of(message))
            assert opening.domain == message.node
            assert total.dtype == np.int64
            holders.append(message.node)
    expected = [key_holder(agreement_of(plan, "count", release, 0)) for release in range(3)]
    assert holders == expected
    assert set(holders) == set(NAMES), "the key goes round"


def test_no_key_is_left_on_any_disk(
    network: Network, others_keys: set[Path], recorded: tuple
) -> None:
    for name in NAMES:
        assert list(network.home.domain(name).path.rglob("*.opening"))
    assert keys_on_disk(network) <= others_keys


def test_every_domain_adds_the_whole_noise(recorded: tuple) -> None:
    plan, _, folder = recorded
    step = plan.steps[0]
    exact = sum(counts(name) for name in NAMES)
    noises = []
    for release in range(step.releases):
        kept = attempt_folder(folder, "count", release, 0)
        total = verify_ckks_transcript(agreement_of(plan, "count", release, 0), kept)
        noises.append(total / step.scale - exact)
    # 90 samples of sqrt(3) times the accounted noise: outside with probability below 1e-6.
    measured = np.sqrt(np.mean(np.square(noises))) / (step.noise_multiplier * step.clip_norm)
    assert 1.1 < measured < 2.5
    assert noise_std(plan, step) == pytest.approx(
        step.noise_multiplier * step.clip_norm * np.sqrt(3)
    )


def test_the_owners_read_who_could_decrypt_them_alone(network: Network, recorded: tuple) -> None:
    plan, _, _ = recorded
    shown = json.loads(network.federation.nodes["east"].call("plan", plan_hash=plan.hash))
    for text in ("homomorphic encryption", "full noise", "accounted alone"):
        assert text in shown["explanation"]


def test_the_regression_example_finds_the_line_on_real_nodes(
    network: Network, tmp_path: Path
) -> None:
    script = ROOT / "examples" / "linear_regression_ckks.py"
    assert len(script.read_text().splitlines()) <= 60
    written = Script(str(script), "open-data", None)
    federation = network.federation
    plan = written.plan(federation)
    network.submit_and_approve(plan)
    run = federation.train(plan, tmp_path)
    # Without noise the released moments are those of the rows, up to the quantisation.
    table = plan.state["features"]
    gram = torch.zeros(3, 3)
    for name in NAMES:
        for _, hers in interactions(name).groupby("user"):
            x = table[hers["item"].str.removeprefix("item-").astype(int).to_numpy()]
            gram += x.T @ x / len(x)
    # Every value is 1, so X'y is the first column of X'X, and the line is the constant 1.
    expected = torch.linalg.solve(gram + 1e-3 * torch.eye(3), gram[:, 0])
    assert torch.allclose(run.state["theta"], expected, atol=1e-3)
    assert torch.allclose(run.state["theta"], torch.tensor([1.0, 0.0, 0.0]), atol=2e-3)
    verified = CliRunner().invoke(app, ["run", "verify", str(tmp_path)])
    assert verified.exit_code == ExitCode.OK, verified.output


def counts(name: str) -> Any:
    rows = interactions(name)["item"].str.removeprefix("item-").astype(int)
    return np.bincount(rows, minlength=ITEMS).astype(float)
