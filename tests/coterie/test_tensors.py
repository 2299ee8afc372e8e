"""Tensors on real nodes: shared, computed with, revealed with noise and charged."""

import copy
import json
import os
import pickle
import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import syft
import torch
from typer.testing import CliRunner

import coterie as ct
from coterie.cli import app
from coterie.partners import card_of, invite, open_owner
from coterie.processes import free_ports, start, stop
from network.client import NodeRefused
from network.rounds import verify_rounds
from policies.approvals import load_owner_key, owner_key_hex
from tests.coterie.test_main_job import clipped_counts
from tests.network_of_three import ITEMS, NAMES, Network

pytestmark = pytest.mark.nodes


def kept_plan(data: ct.DataSet, purpose: str, epsilon: float | None, releases: int) -> ct.Plan:
    """Counts how many users have each item, and keeps the counts."""

    def count(state, user):  # type: ignore[no-untyped-def]
        return {"counts": torch.zeros(data.items).scatter_add(0, user.items, user.mask)}

    step = ct.Sum("count", count, clip_norm=4.0, releases=releases, kept=True)
    return ct.Plan(name="kept", purpose=purpose, data=data, steps=[step], epsilon=epsilon)


def test_a_public_tensor_is_computed_with_exactly(network: Network, tmp_path: Path) -> None:
    data = network.federation.data("open-data")
    table = {"table": torch.arange(2.0**22 + 2) % 7}

    def looked_up(state, user):  # type: ignore[no-untyped-def]
        return {"sums": state["table"][-2:] * user.mask.sum()}

    plan = kept_plan(data, "exact", None, releases=1)
    step = ct.Sum("looked up", looked_up, clip_norm=64.0, kept=True)
    plan = replace(plan, steps=[*plan.steps, step], state=table)
    network.submit_and_approve(plan)
    kept = network.federation.tensors(plan, tmp_path)
    # A state too long for one message goes before it, in parts.
    few, more = kept.share("looked up", {"table": table["table"] + 1})["sums"].reveal("looked up")
    assert more / few == pytest.approx(4 / 3, 1e-3)
    x = kept.share("count")["counts"]
    matrix = np.arange(60.0).reshape(2, ITEMS)
    found = ct.SMPCTensor.concatenate([(2.5 * x - x)[::3], matrix @ x, x.mean().reshape(1)])
    counts = clipped_counts()
    wanted = np.concatenate([1.5 * counts[::3], matrix @ counts, [counts.mean()]])
    assert np.allclose(found.reveal(), wanted, atol=0.05)
    verify_rounds(network.federation.bind(plan), tmp_path)


def test_secret_products_need_the_plans_dealer(network: Network, tmp_path: Path) -> None:
    """The dealer is a process of its own; who isn't the plan's is refused by every node."""
    with dealing(network, tmp_path / "dealer") as (url, key):
        plan = replace(
            kept_plan(network.federation.data("open-data"), "products", None, releases=4),
            dealer=ct.Dealer(name="notary", key=key),
        )
        network.submit_and_approve(plan)
        kept = network.federation.tensors(plan, tmp_path, dealer=url)
        x = kept.share("count")["counts"]
        counts = clipped_counts()
        assert np.allclose((x * x).reveal(), counts**2, rtol=1e-3, atol=0.05)
        matrix = x.reshape(5, 6)
        wanted = counts.reshape(5, 6) @ counts.reshape(6, 5)
        assert np.allclose((matrix @ x.reshape(6, 5)).reveal(), wanted, rtol=1e-3, atol=0.05)
        # Three factors in a row fit the ring once digits that don't matter are dropped.
        cube = (x * x).truncate(22) * x
        scale = np.abs(counts).max() ** 3
        assert np.allclose(cube.reveal(), counts**3, rtol=1e-3, atol=1e-4 * scale)
        # The largest product there is, which the messages must have room for; four axes.
        less = np.ones((2**14, 1)) @ x.truncate(10).reshape(1, ITEMS)[:, :16]
        many = less.reshape(2**9, 2**5, 4, 4)
        squares = (many * many)[5, 7].truncate(6).reveal()
        assert np.allclose(squares.reshape(-1), counts[:16] ** 2, rtol=1e-3, atol=1)
        with pytest.raises(ct.TensorRefused, match="need a dealer"):
            network.federation.tensors(plan, tmp_path).multiply(x, x, matrices=False)


@contextmanager
def dealing(network: Network, path: Path) -> Iterator[tuple[str, str]]:
    """A dealer to all of the network, at (address, key)."""
    path.mkdir()
    key_file = network.dealer_key
    domains = [card_of(network.home.domain(name)).node_key for name in NAMES]
    (port,) = free_ports(1)
    key = load_owner_key(key_file, None)
    url = f"http://127.0.0.1:{port}"
    command = ["-m", "network.dealer", str(key_file), "127.0.0.1", str(port), *domains]
    pid = path / "dealer.pid"
    start("dealer", command, pid, path / "log", "127.0.0.1", port, f"{url}/")
    try:
        yield url, owner_key_hex(key)
    finally:
        stop("dealer", pid)


def test_a_private_reveal_is_noised_charged_and_used_up(network: Network, tmp_path: Path) -> None:
    plan = kept_plan(network.federation.data("interactions"), "private", 4.0, releases=2)
    plan_hash = network.submit_and_approve(plan)
    kept = network.federation.tensors(plan, tmp_path)
    x = kept.share("count")["counts"]
    assert [network.charged(name, plan_hash) for name in NAMES] == [[], [], []]
    thousand = 1000 * x
    found = thousand.reveal()
    for name in NAMES:
        assert network.charged(name, plan_hash) == [("count", 0, 0)]
    noise = found - 1000 * clipped_counts()
    # 30 samples: their deviation falls outside these bounds with probability below 1e-6.
    assert 0.4 * thousand.noise_std() < np.sqrt(np.mean(noise**2)) < 1.8 * thousand.noise_std()
    assert thousand.noise_std() == pytest.approx(1000 * x.noise_std())
    again = thousand.reveal()
    assert not np.array_equal(found, again), "a second reveal takes fresh noise"
    with pytest.raises(ct.TensorRefused, match="releases of step 'count' are used"):
        x.reveal()
    # Nor does asking the nodes past the client help: numbers out of range and used ones.
    for release, attempt in ((2, 0), (0, 0), (0, 1)):
        with pytest.raises(NodeRefused):
            open_it(kept, x.name, release, attempt)
    shown = CliRunner().invoke(app, ["run", "verify", str(tmp_path)])
    assert shown.exit_code == 0, shown.output
    assert "2 totals" in shown.output
    kept.finish()
    kept.finish()  # as after a domain was away: where the plan has ended, nothing is done
    with pytest.raises(NodeRefused, match="no run of this plan is open here"):
        x.sum()
    with pytest.raises(ct.RunInterrupted, match="part of this plan has ended"):
        x.reveal()
    assert json.loads(kept.nodes["east"].call("plan", plan_hash=plan_hash))["status"] == "closed"


def open_it(kept: ct.Tensors, name: str, release: int, attempt: int) -> None:
    """A whole attempt by hand, on the first node, as far as it goes."""
    node, where = kept.nodes["east"], {"step": "count", "release": release, "attempt": attempt}
    advert = json.loads(
        node.stream("advertise", plan_hash=kept.approved.hash, tensor=f"{name}/{ITEMS}", **where)
    )["advert"]
    node.stream(
        "share",
        plan_hash=kept.approved.hash,
        adverts=json.dumps([advert]),
        held="{}",
        state=np.empty(0, np.uint8),
        **where,
    )


def test_there_is_no_other_way_out(network: Network, tmp_path: Path) -> None:
    plan = kept_plan(network.federation.data("interactions"), "closed", 4.0, releases=1)
    plan_hash = network.submit_and_approve(plan)
    kept = network.federation.tensors(plan, tmp_path)
    x = kept.share("count")["counts"]
    assert x.get() == ct.TensorShape((ITEMS,))
    assert copy.deepcopy(x) == ct.TensorShape((ITEMS,))
    assert x.name.encode() not in pickle.dumps(x)
    assert repr(x) == str(x) == f"{x}" == "SMPCTensor(shape=(30,), held by 3 domains)"
    assert copy.copy(x) == ct.TensorShape((ITEMS,))
    for convert in (
        np.asarray, np.array, np.sum, np.add.reduce, float, int, complex, bytes, list, tuple,
        sorted, bool, torch.as_tensor, torch.tensor, torch.from_dlpack, iter, sum, max, hex,
        memoryview, json.dumps, reversed, lambda x: syft.serialize(x, to_bytes=True),
        lambda x: x == x, lambda x: x != 1, lambda x: x < 1, lambda x: x <= 1, lambda x: 1 in x,
        lambda x: np.arange(30) == x, lambda x: x.tolist(), lambda x: x.numpy(), lambda x: x.item(),
        lambda x: range(30)[x], lambda x: x + 1, lambda x: x * np.ones(30), lambda x: x**2,
        lambda x: x @ np.ones(30), lambda x: x[::-1], lambda x: x[np.ones(30, bool)],
        lambda x: np.ones((1, 30)) * 1j @ x, lambda x: x[2:2], lambda x: x[:: 2**70].reshape(7),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError, RuntimeError, AttributeError)):
            convert(x)
    for bad in ([], [x] * 65, [x, np.ones(ITEMS)], [x.sum()]):
        with pytest.raises(ct.TensorRefused):
            ct.SMPCTensor.concatenate(bad)
    for bad in (0, 0.0, -0.0, float("nan"), float("inf"), 1e300, True, "2", None):
        with pytest.raises((ct.TensorRefused, TypeError)):
            x * bad
    with pytest.raises(ct.TensorRefused):
        np.full((1, ITEMS), np.nan) @ x
    node = kept.nodes["east"]
    for method, arguments in (
        ("advertise", {"step": "count", "release": 0, "attempt": 0}),
        ("advertise", {"step": "count", "release": 0, "attempt": 0, "tensor": "a" * 64 + "/30"}),
        ("advertise", {"step": "count", "release": 0, "attempt": 0, "tensor": x.name + "/29"}),
        ("advertise", {"step": "count", "release": 0, "attempt": 0, "tensor": "../../x"}),
        ("reveal", {"step": "count", "release": 0, "attempt": 0, "seeds": "[]", "notes": "{}"}),
        ("masked", {"step": "count", "release": 0, "attempt": 0, "begin": 0}),
        ("tensor_key", {"step": "no", "number": 0}),
        ("tensor_key", {"step": "count", "number": -1}),
    ):
        with pytest.raises(NodeRefused):
            node.stream(method, plan_hash=plan_hash, **arguments)
    assert network.charged("east", plan_hash) == []


def test_nobody_elses_account_reaches_a_tensor(network: Network, tmp_path: Path) -> None:
    """Another scientist, an auditor and the owner's hub get nothing of a run that isn't theirs."""
    plan = kept_plan(network.federation.data("interactions"), "mine", 4.0, releases=1)
    plan_hash = network.submit_and_approve(plan)
    kept = network.federation.tensors(plan, tmp_path)
    x = kept.share("count")["counts"]
    for role in ("scientist", "auditor"):
        accounts = tmp_path / f"{role}.json"
        invite(network.home, "east", f"{role}@elsewhere.example", role, accounts)
        other = ct.connect(accounts, tmp_path / f"{role}.pem").nodes["east"]
        for method, arguments in (
            ("tensor_key", {"step": "count", "number": 0}),
            ("tensor_drop", {"names": json.dumps([x.name])}),
            ("advertise", {"step": "count", "release": 0, "attempt": 0, "tensor": x.name + "/30"}),
            ("tensor_apply", {"operation": json.dumps({"do": "sum", "of": [x.name]}),
                              "matrix": np.empty(0, np.uint8)}),
        ):  # fmt: skip
            with pytest.raises(NodeRefused):
                other.stream(method, plan_hash=plan_hash, **arguments)
    assert x.sum().shape == ()


def test_comparisons_need_spu_at_every_domain(network: Network, tmp_path: Path) -> None:
    """Without it each node says how to install it; with COTERIE_SPU=PYTHON they are made."""
    data = network.federation.data("open-data")
    plan = replace(kept_plan(data, "compared", None, releases=5), comparisons="spu")
    network.submit_and_approve(plan)
    kept = network.federation.tensors(plan, tmp_path)
    x = kept.share("count")["counts"]
    with pytest.raises(NodeRefused, match="pip install spu"):
        x.above(2.5)
    if "COTERIE_SPU" not in os.environ:
        return
    files = [network.home.domain(name).path / "spu.toml" for name in NAMES]
    for file, port in zip(files, free_ports(3), strict=True):
        python = os.environ["COTERIE_SPU"]
        file.write_text(f'python = "{python}"\naddress = "127.0.0.1:{port}"\n')
    counts = clipped_counts()
    try:
        assert np.array_equal((x > 2.5).reveal(), counts > 2.5)
        assert np.array_equal((x >= 2).reveal(), counts >= 2)
        assert np.array_equal((x < np.uint8(2)).reveal(), counts < 2)
        assert np.array_equal((x <= x).reveal(), np.ones(counts.shape))
        assert np.allclose(x.clip(1, 3).reveal(), np.clip(counts, 1, 3), atol=1e-3)
    finally:
        for file in files:
            file.unlink()


def test_the_example_runs_as_written(
    network: Network,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Twice, as it says: the first time it waits for the owners."""
    monkeypatch.chdir(tmp_path)
    example = Path(__file__).resolve().parents[2] / "examples" / "tensors.py"
    accounts, key = network.home.accounts, network.home.scientist_key
    monkeypatch.setattr("sys.argv", [str(example), str(accounts), str(key), "interactions"])
    with pytest.raises(SystemExit, match="when all owners have approved"):
        runpy.run_path(str(example))
    for name in NAMES:
        owner = open_owner(network.home, name)
        (waiting,) = [each for each in owner.plans() if each["name"] == "groups of items"]
        assert owner.approve(waiting["plan_hash"], "agreed") == "approved"
    runpy.run_path(str(example))
    assert "noise of" in capsys.readouterr().out
