"""`coterie run verify`: whoever gets a run's folder recomputes its totals; who lied is named."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coterie.cli import app
from coterie.exit_codes import ExitCode
from network.rounds import attempt_folder
from network.smpc import ring
from network.smpc.inputs import masked_file
from network.smpc.transcript import write_transcript
from policies.accounting import ADJACENCY, epsilon_at_every_partner
from policies.plan import Plan
from tests.domains.participating_domains import Carried, domains_in


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three releases, as its coordinator keeps it."""
    folder = tmp_path_factory.mktemp("run")
    domains = domains_in(tmp_path_factory.mktemp("domains"))
    history = []
    for release in range(3):
        carried = Carried(domains, release)
        opened = carried.run()
        kept = attempt_folder(folder, "s", release, 0)
        kept.mkdir(parents=True)
        for name, elements in opened.masked.items():
            assert not isinstance(elements, ring.FramedFile)
            masked_file(kept, carried.agreement, name).write_bytes(ring.pack(elements))
        write_transcript(kept, carried.agreement, opened.transcript, opened.total)
        history.append(
            {"index": release + 1, "total": 3, "step": "s", "release": release, "attempt": 0,
             "epsilon": 1.0, "metrics": {}, "seconds": {}, "sent": {}, "received": {}}
        )  # fmt: skip
    (folder / "plan.json").write_text(domains.plan.to_json())
    journal = {"plan_hash": domains.plan.hash, "history": history, "finished": True}
    (folder / "journal.json").write_text(json.dumps(journal))
    return folder


def at(folder: Path, release: int) -> Path:
    return attempt_folder(folder, "s", release, 0)


def total_changed(folder: Path) -> None:
    file = at(folder, 1) / "total.ring"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def input_changed(folder: Path) -> None:
    file = next(at(folder, 1).glob("masked-*.ring"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def inputs_exchanged(folder: Path) -> None:
    one, other, *_ = sorted(at(folder, 1).glob("masked-*.ring"))
    first = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(first)


def another_release_s(folder: Path) -> None:
    shutil.rmtree(at(folder, 1))
    shutil.copytree(at(folder, 0), at(folder, 1))


def one_missing(folder: Path) -> None:
    shutil.rmtree(at(folder, 1))


def kept_twice(folder: Path) -> None:
    shutil.copytree(at(folder, 1), folder / "rounds" / "s-01-0")


def no_name(folder: Path) -> None:
    shutil.copytree(at(folder, 1), folder / "rounds" / "nonsense")


def unknown_step(folder: Path) -> None:
    shutil.copytree(at(folder, 1), folder / "rounds" / "t-1-0")


def a_receipt_left_out(folder: Path) -> None:
    _messages(folder, lambda said: {**said, "receipts": said["receipts"][1:]})


def shares_left_out(folder: Path) -> None:
    _messages(folder, lambda said: {**said, "sealed": said["sealed"][1:]})


def no_messages(folder: Path) -> None:
    _messages(folder, lambda said: {})


def a_pipe(folder: Path) -> None:
    """Whoever opened it would wait for ever."""
    file = next(at(folder, 1).glob("masked-*.ring"))
    file.unlink()
    os.mkfifo(file)


def broken_journal(folder: Path) -> None:
    (folder / "journal.json").write_text("[" * 9)


def other_journal(folder: Path) -> None:
    (folder / "journal.json").write_text('{"history": [{"surplus": 1}]}')


def broken_plan(folder: Path) -> None:
    (folder / "plan.json").write_text("{}")


def _messages(folder: Path, change: Callable[[dict], dict]) -> None:
    file = at(folder, 1) / "messages.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


LIES: dict[Callable[[Path], None], str] = {
    total_changed: "the coordinator: the total it published",
    input_changed: "its masked input isn't the one it signed",
    inputs_exchanged: "its masked input isn't the one it signed",
    another_release_s: "isn't signed for this attempt",
    one_missing: "The transcript of s 1 is missing",
    kept_twice: "keeps a round twice",
    no_name: "none of the plan's: nonsense",
    unknown_step: "none of the plan's: t-1-0",
    a_receipt_left_out: "fewer than the threshold",
    shares_left_out: "other shares than those that it carried",
    no_messages: "transcript is unreadable",
    a_pipe: "keeps other things than files",
    broken_journal: "journal is unreadable",
    other_journal: "journal is unreadable",
    broken_plan: "plan or journal is unreadable",
}


def test_a_run_says_whom_its_releases_left_out(honest: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(honest, tmp_path / "run"))
    journal = json.loads((run / "journal.json").read_text())
    journal["history"][1]["left_out"] = {"north": "it is down"}
    (run / "journal.json").write_text(json.dumps(journal))
    found = CliRunner().invoke(app, ["run", "show", str(run)], terminal_width=200)
    assert found.exit_code == ExitCode.OK
    assert found.output.count("north") == 1


def verified(folder: Path) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["run", "verify", str(folder)])
    assert found.exception is None or isinstance(found.exception, SystemExit)
    return found.exit_code, " ".join(found.output.split())


def test_an_honest_run_is_verified(honest: Path) -> None:
    code, said = verified(honest)
    assert code == 0
    assert said.startswith("3 totals of plan")


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_a_lie_in_a_run_s_folder_is_found(
    honest: Path, tmp_path: Path, lie: Callable[[Path], None]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(honest, folder)
    lie(folder)
    code, said = verified(folder)
    assert code == ExitCode.NOT_VERIFIED
    assert LIES[lie] in said


def test_an_epsilon_so_far_stands_with_its_unit_and_the_bound_for_a_user_of_every_partner(
    honest: Path,
) -> None:
    approved = Plan.from_json((honest / "plan.json").read_text())
    events = [approved.step("s").event(3)]
    bound = epsilon_at_every_partner(events, approved.delta, len(approved.roster))
    shown = " ".join(CliRunner().invoke(app, ["run", "show", str(honest)]).output.split())
    assert f"user at all {len(approved.roster)} partners: epsilon {bound:.3f}" in shown
    said = json.loads(CliRunner().invoke(app, ["run", "show", str(honest), "--json"]).stdout)
    assert said["epsilon_at_every_partner"] == bound
    assert (said["delta"], said["adjacency"]) == (approved.delta, ADJACENCY)
