"""Every service method that a node has registered, tried by every role: Syft's and ours."""

from collections.abc import Callable
from typing import Any

import pytest
from syft.client.api import SyftAPICall
from syft.serde.serialize import _serialize
from syft.server.credentials import SyftVerifyKey
from syft.service.service import ServiceConfigRegistry
from syft.service.user.user_roles import ServiceRole
from syft.types.uid import UID

import domains.ledger_service
import domains.members_service
import domains.rounds_service
import domains.service
import domains.tensors_service  # noqa: F401
from domains.paths import paths_of
from network.client import API, NodeClient
from tests.hostile.attacks import Target, call

pytestmark = pytest.mark.nodes

ROLES = {"auditor": ServiceRole.GUEST, "scientist": ServiceRole.DATA_SCIENTIST}


def registered() -> list[str]:
    """Every name that any method goes by: its path, its private path, and how it is filed."""
    found = ServiceConfigRegistry.get_registered_configs()
    names = {n for key, c in found.items() for n in (key, c.public_path, c.private_path)}
    return sorted(names)


@pytest.mark.parametrize("role", ROLES)
def test_no_registered_method_is_open_beyond_a_roles_own(
    role: str, target: Target, record_property: Callable[[str, str], None]
) -> None:
    client = target.auditor if role == "auditor" else target.rival
    closed = [path for path in registered() if path not in paths_of(ROLES[role])]
    assert len(closed) > 400, "Syft's methods and ours, by each of their names"
    opened = {path: got for path in closed if not (got := call(client, path)).startswith("refused")}
    record_property("tried", f"{len(closed)} methods that a {role} may not call")
    record_property("got", f"{len(opened)} answered")
    assert not opened


def private_parts(target: Target) -> list[bytes]:
    """What no answer to a scientist may hold: users, the twin's private half, others' keys."""
    home = target.network.home
    rows = (home.domain("east").datasets / "interactions" / "data").glob("*.csv")
    users = {line.split(",")[0] for file in rows for line in file.read_text().splitlines()[1:]}
    own = str(target.rival._key)
    keys = [str(client._key) for client in (target.node, target.auditor) if str(client._key) != own]
    hidden = ["coterie:interactions", "hashed_password", "$2b$", home.domain("east").node_key_hex()]
    return [text.encode() for text in (*users, *keys, *hidden)]


def raw_answer(client: NodeClient, path: str, **arguments: Any) -> bytes:
    message = SyftAPICall(server_uid=client.server_uid, path=path, args=[], kwargs=arguments)
    blob = _serialize(message.sign(client._key), to_bytes=True)
    return client._post(f"{API}/api_call", blob, 60.0).content


def test_what_syfts_open_methods_answer_holds_nothing_private(target: Target) -> None:
    """By any id that a data set shows, its private half's among them, and another's requests."""
    rival, private = target.rival, private_parts(target)
    assert len(private) > 30
    (data, *_) = [d for d in rival.call_syft("dataset.get_all") if d.name == "interactions"]
    (asset,) = data.asset_list
    ids = [asset.action_id, data.id, asset.id, UID()]
    own = SyftVerifyKey.from_string(target.node.verify_key)
    answers = {
        "all": raw_answer(rival, "dataset.get_all"),
        "search": raw_answer(rival, "dataset.search", name=""),
        "requests": raw_answer(rival, "request.get_all"),
        "notifications": raw_answer(rival, "notifications.get_all_unread"),
        "self": raw_answer(rival, "user.get_current_user"),
        "another": raw_answer(rival, "user.get_by_verify_key", verify_key=own),
        **{f"data {n}": raw_answer(rival, "dataset.get_by_id", uid=u) for n, u in enumerate(ids)},
        **{f"mock {n}": raw_answer(rival, "action.get_mock", uid=u) for n, u in enumerate(ids)},
        **{f"asked {n}": raw_answer(rival, "request.get_by_uid", uid=u) for n, u in enumerate(ids)},
    }
    for what, answer in answers.items():
        for part in private:
            assert part not in answer, f"{what} holds {part!r}"
    emails = [b"ada@university.example", b"eve@audit.example"]
    for what in ("requests", "notifications", "another"):
        assert not any(email in answers[what] for email in emails), what
