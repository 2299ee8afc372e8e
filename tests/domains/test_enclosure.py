"""The engine's own process: answers as the engine does, ends in time, keeps what is private."""

import os
import signal
from pathlib import Path
from tempfile import TemporaryFile
from types import SimpleNamespace
from typing import IO, Any

import numpy as np
import pytest

from domains.coming_noise import ComingNoise
from domains.enclosure import Enclosure, EnclosureFailed, EngineOverdue
from domains.noised import noised_sum
from domains.states import State, read_state
from network.states import saved
from policies.users import Bounds
from tests.domains.test_engine import ITEMS, WIDTH, bound, people, plan, remembering, total


def test_a_memory_is_kept_from_release_to_release_and_outlives_the_engine(tmp_path: Path) -> None:
    written, everyone = remembering(), people(6)
    everyone.save(tmp_path)
    state = {"v": written.state["v"].numpy()}
    counts, some = np.diff(everyone.indptr), np.array([True, False, True, True, False, True])
    plan_json, scale = bound(written).to_json(), bound(written).steps[0].scale

    def released(engine: Enclosure, selected: np.ndarray) -> float:
        counted = np.zeros(1, np.int64)
        engine.private_sum("s", state, selected).add_to(counted)
        return float(counted[0] / scale)

    with Enclosure(tmp_path, plan_json, Bounds(ITEMS, WIDTH)) as engine:
        assert released(engine, some) == counts[some].sum()
        twice = 2 * counts[some].sum() + counts[~some].sum()
        assert released(engine, np.ones(6, dtype=bool)) == twice
    with Enclosure(tmp_path, plan_json, Bounds(ITEMS, WIDTH)) as engine:
        assert released(engine, some) == 3 * counts[some].sum()


def test_the_enclosure_gives_the_engines_sum_and_keeps_memory_inside(tmp_path: Path) -> None:
    written, data = plan(), people(6)
    data.save(tmp_path)
    approved = bound(written)
    state = {"v": written.state["v"].numpy()}
    with Enclosure(tmp_path, approved.to_json(), Bounds(ITEMS, WIDTH)) as enclosure:
        found = np.zeros(approved.steps[0].width, np.int64)
        enclosure.private_sum("s", {}, np.ones(6, dtype=bool)).add_to(found)
        assert np.array_equal(found, total(approved.steps[0], data, dict(written.state)))
        enclosure.memory(state)
        best = enclosure.recommend(state, "u2", 4)
        seen = set(data.items[data.indptr[2] : data.indptr[3]].tolist())
        assert not seen & {item for item, _ in best}
        with pytest.raises(EnclosureFailed, match="no user"):
            enclosure.recommend(state, "stranger", 4)


def test_an_engine_never_has_noise_where_it_can_read_it(tmp_path: Path) -> None:
    approved, data = bound(plan()), people(6)
    data.save(tmp_path)
    step = approved.steps[0]
    with Enclosure(tmp_path, approved.to_json(), Bounds(ITEMS, WIDTH)) as enclosure:
        run: Any = SimpleNamespace(
            plan=approved,
            dataset=SimpleNamespace(public=False, users=6),
            enclosure=lambda: enclosure,
        )
        noised = noised_sum(run, step, {}, ComingNoise(approved, step))()
        left = os.pread(enclosure._sums.fileno(), noised.nbytes, 0)
    exact = total(step, data, dict(plan().state))
    assert np.array_equal(np.frombuffer(left, np.int64), exact)
    assert not np.array_equal(noised, exact)


def test_a_killed_engine_is_noticed_at_once(tmp_path: Path) -> None:
    people(3).save(tmp_path)
    enclosure = Enclosure(tmp_path, bound(plan()).to_json(), Bounds(ITEMS, WIDTH))
    os.kill(enclosure._process.pid, signal.SIGKILL)
    with pytest.raises(EnclosureFailed, match="Start the next attempt"):
        enclosure.private_sum("s", {}, np.ones(3, dtype=bool))
    enclosure.close()


def test_an_engine_that_takes_longer_than_the_plans_deadline_is_killed(tmp_path: Path) -> None:
    people(3).save(tmp_path)
    hasty = bound(plan()).model_copy(update={"deadline_s": 1})
    with Enclosure(tmp_path, hasty.to_json(), Bounds(ITEMS, WIDTH)) as enclosure:
        os.kill(enclosure._process.pid, signal.SIGSTOP)
        with pytest.raises(EngineOverdue, match=r"a release may take 1 s .* it is charged"):
            enclosure.private_sum("s", {}, np.ones(3, dtype=bool))
        assert not enclosure.alive
    with Enclosure(tmp_path, hasty.to_json(), Bounds(ITEMS, WIDTH)) as enclosure:
        os.kill(enclosure._process.pid, signal.SIGSTOP)
        with pytest.raises(EngineOverdue, match="memories may take 1 s"):
            enclosure.memory({"v": plan().state["v"].numpy()})


def test_the_engine_knows_no_secret_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVER_PRIVATE_KEY", "secret")
    people(3).save(tmp_path)
    with Enclosure(tmp_path, bound(plan()).to_json(), Bounds(ITEMS, WIDTH)) as enclosure:
        environment = Path(f"/proc/{enclosure._process.pid}/environ").read_bytes()
        assert b"SERVER_PRIVATE_KEY" not in environment
        assert "memory" in {wall.name for wall in enclosure.protections if wall.on}


def test_a_state_in_the_node_s_own_file_is_read_there_and_stays_as_it_is(tmp_path: Path) -> None:
    """Also one that takes the place of another, longer or shorter, as every release's does."""
    written, data = plan("gradient"), people(6)
    data.save(tmp_path)
    approved = bound(written)
    with TemporaryFile() as file:
        place = Enclosure(tmp_path, approved.to_json(), Bounds(ITEMS, WIDTH), file)
        with place as enclosure:
            for factor in (1.0, 0.5):
                state = {"v": factor * written.state["v"]}
                content = saved(state)
                held = State("", len(content), file)
                held.take(content)
                found = np.zeros(approved.steps[0].width, np.int64)
                tensors = read_state(approved.steps[0], file)
                enclosure.private_sum("s", tensors, np.ones(6, dtype=bool)).add_to(found)
                assert np.array_equal(found, total(approved.steps[0], data, state))
                assert os.pread(file.fileno(), len(content) + 1, 0) == content
            assert _ways_open(enclosure._process.pid, file) == {os.O_RDONLY}


def _ways_open(pid: int, file: IO[bytes]) -> set[int]:
    """How a process has a file open: for reading, writing or both."""
    ours, folder = os.fstat(file.fileno()), Path(f"/proc/{pid}")
    theirs = [
        each.name for each in (folder / "fd").iterdir() if os.path.samestat(each.stat(), ours)
    ]
    told = [(folder / "fdinfo" / name).read_text() for name in theirs]
    return {int(each.split("flags:")[1].split()[0], 8) & os.O_ACCMODE for each in told}
