"""Tampering with the exported bundle, with proofs and with the peers' heads: found, and named."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policies.approvals import owner_key_hex, sign_approval
from policies.canonical import canonical
from policies.verify import verify, verify_proof
from tests.policies.tampering import (
    OTHER,
    OWNER,
    PLAN,
    Kind,
    Scene,
    found,
)


def bundle_entry(position: int, field: int, value: Any) -> Callable[[Scene], object]:
    def tamper(scene: Scene) -> None:
        scene.bundle["entries"][position][field] = value

    return tamper


def bundled(**changes: Any) -> Callable[[Scene], object]:
    return lambda scene: scene.bundle.update(changes)


def swap_approvals(scene: Scene) -> None:
    first, second = scene.place("approval"), scene.place("approval", 1)
    plan = json.loads(scene.entries[second].body)["plan"]
    signature = json.loads(scene.entries[first].body)["signature"]
    scene.resign(scene.edited("approval", 1, plan=plan, signature=signature))


def add(kind: str, **body: Any) -> Callable[[Scene], object]:
    def tamper(scene: Scene) -> None:
        last = scene.entries[-1]
        body["time"] = json.loads(last.body)["time"]
        text = canonical(body).decode()
        scene.resign([*scene.entries, dataclasses.replace(last, kind=kind, body=text)])

    return tamper


def cut_bundle(scene: Scene) -> None:
    scene.resign(scene.entries[:10])


def head_file(**changes: Any) -> Callable[[Scene], object]:
    def tamper(scene: Scene) -> None:
        file = scene.heads / "south.json"
        said = json.loads(file.read_text())
        for head in said["heads"]:
            head |= changes
        file.write_text(json.dumps(said))

    return tamper


def respell(kind: str, old: str, new: str) -> Callable[[Scene], object]:
    return lambda scene: scene.resign(scene.respelled(kind, old, new))


def own_witness(scene: Scene) -> None:
    """The node signs its own head in a peer's name."""
    file = scene.heads / "south.json"
    said, key = json.loads(file.read_text()), scene.north.key
    said |= {"witness_key": owner_key_hex(key), "opened": []}
    for head in said["heads"]:
        parts = (head["node_key"], head["size"], head["root"], head["time"])
        text = "\n".join(map(str, ("coterie-cosignature-v1", *parts)))
        head["cosignature"] = key.sign(text.encode()).hex()
    file.write_text(json.dumps(said))


def tried_while_open(scene: Scene) -> None:
    place = scene.place("reservation", 2)
    again = scene.edited("reservation", 2, attempt=1)[place]
    scene.resign([*scene.entries[: place + 1], again, *scene.entries[place + 1 :]])


def reserved_more(releases: range, attempts: range) -> Callable[[Scene], object]:
    """These releases of the first plan are reserved and charged behind the end."""

    def tamper(scene: Scene) -> None:
        reservation = scene.entries[scene.place("reservation")]
        charge = scene.entries[scene.place("charge")]
        more = [
            scene.again(entry, release=release, attempt=attempt)
            for release in releases
            for attempt in attempts
            for entry in (reservation, charge)
        ]
        scene.resign([*scene.entries, *more])

    return tamper


NO_NOISE = {"count": 1, "noise_multiplier": 0.5, "sampling_rate": 1}
KINDS = [
    Kind("remove the approval", lambda s: s.resign(s.without("approval")),
         "reserved while the plan is pending", "bundle"),
    Kind("swap two approvals", swap_approvals, "owner's signature doesn't fit", "bundle"),
    Kind("approve with another key", lambda s: s.resign(s.edited(
        "approval", owner_key=owner_key_hex(OTHER), signature=sign_approval(OTHER, PLAN, "north"))),
        "not by the domain's owner", "bundle"),
    Kind("charge without a reservation", lambda s: s.resign(s.without("reservation", 1)),
         "no open reservation", "bundle"),
    Kind("open without a charge", lambda s: s.resign(s.without("charge")),
         "opened without a charge", "bundle"),
    Kind("reserve at another noise than approved", lambda s: s.resign(
        s.edited("reservation", event=NO_NOISE)), "isn't in the approved plan", "bundle"),
    Kind("charge an attempt twice", lambda s: s.resign(
        [*s.entries, s.again(s.entries[-2])]),
        "no open reservation", "bundle"),
    Kind("lower the cap afterwards", lambda s: s.resign(s.edited("budget", epsilon=0.5)),
         "over its budget", "bundle"),
    Kind("choose other orders for the filter afterwards", lambda s: s.resign(
        [*s.entries, s.again(s.entries[1], orders=[2.0], shares=[1.0])]),
        "after something was reserved", "bundle"),
    Kind("give the filter's orders more than all of delta", lambda s: s.resign(
        s.edited("budget", orders=[2.0, 3.0], shares=[0.9, 0.9])), "no such filter", "bundle"),
    Kind("date an entry back", lambda s: s.resign(
        s.edited("charge", 1, time="2020-01-01T00:00:00+00:00")), "dated before the entry",
        "bundle"),
    Kind("date an entry ahead", lambda s: s.resign(
        s.edited("release", 2, time="2126-01-01T00:00:00+00:00")), "dated in the future",
        "bundle"),
    Kind("add an entry of an unknown kind", add("pardon", plan=PLAN), "unknown kind", "bundle"),
    Kind("use an approval for another domain", lambda s: s.resign(s.edited(
        "approval", signature=sign_approval(OWNER, PLAN, "south"))),
        "owner's signature doesn't fit", "bundle"),
    Kind("open a second ledger inside", lambda s: s.resign([*s.entries, s.again(s.entries[0])]),
         "opened only once", "bundle"),
    Kind("try a release again while it is open", tried_while_open,
         "an earlier attempt of this release is open", "bundle"),
    Kind("repeat a release more often than was approved", reserved_more(range(1), range(1, 4)),
         "more repetitions than spare attempts", "bundle"),
    Kind("release more than was approved", reserved_more(range(3, 9), range(1)),
         "more releases than were approved", "bundle"),
    # The node writes entries as no honest one does, hashed and signed by its key
    Kind("write a whole number as a fraction",
         respell("reservation", '"noise_multiplier":4,', '"noise_multiplier":4.0,'),
         "RFC 8785", "bundle"),
    Kind("write a number with an exponent",
         respell("budget", '"epsilon":8', '"epsilon":8e0'), "RFC 8785", "bundle"),
    Kind("write a number too large for its type",
         respell("budget", '"epsilon":8', '"epsilon":1e999'), "can't be read", "bundle"),
    Kind("write an integer that no other reader can hold",
         respell("reservation", '"release":0', '"release":90071992547409930'),
         "can't be read", "bundle"),
    Kind("write true for a number", respell("reservation", '"release":0', '"release":true'),
         "its 'release' is bool", "bundle"),
    Kind("say a field twice",
         respell("reservation", '{"attempt":0', '{"attempt":1,"attempt":0'),
         "a key stands twice", "bundle"),
    Kind("put a field more into an entry", lambda s: s.resign(s.edited("charge", refund=True)),
         "says more than its kind may: ['refund']", "bundle"),
    Kind("put a field more into a mechanism", lambda s: s.resign(s.edited("reservation", event={
        "count": 1, "noise_multiplier": 4, "sampling_rate": 1, "clip": 9})),
        "a mechanism says", "bundle"),
    Kind("leave a field out", lambda s: s.resign(s.respelled(
        "release", '"attempt":0,', "")), "it lacks ['attempt']", "bundle"),
    Kind("write spaces into an entry", respell("charge", '{"attempt"', '{ "attempt"'),
         "RFC 8785", "bundle"),
    Kind("write letters as escapes", respell("charge", '"step":"train"',
         '"step":"tr\\u0061in"'), "RFC 8785", "bundle"),
    Kind("date an entry in another time zone",
         respell("charge", '+00:00"', '+05:00"'), "isn't in UTC", "bundle"),
    Kind("date an entry without a time zone", respell("charge", '+00:00"', '"'),
         "isn't in UTC", "bundle"),
    Kind("open a budget under a name that looks alike", add(
        "budget", population="sh\u043eppers", epsilon=8.0, delta=1e-5, public=False),
        "isn't plain ASCII", "bundle"),
    # The exported bundle
    Kind("claim a huge count", bundled(size=10**18), "the bundle says it has 10000", "bundle"),
    Kind("claim a fractional count", bundled(size=15.0), "isn't a whole number", "bundle"),
    Kind("edit an entry of the bundle", bundle_entry(6, 3, "{}"), "was edited", "bundle"),
    Kind("drop the bundle's last entries",
         lambda s: s.bundle.update(entries=s.bundle["entries"][:-2]),
         "the bundle says it has 15 entries, it has 13", "bundle"),
    Kind("date the bundle anew", bundled(exported="2026-06-01T00:00:00+00:00"),
         "bundle isn't signed", "bundle"),
    Kind("drop the bundle's co-signatures", bundled(cosignatures=[]), "bundle isn't signed",
         "bundle"),
    Kind("give the bundle another root", bundled(root="0" * 64), "bundle's head", "bundle"),
    Kind("give the bundle another domain's name", bundled(domain="south"), "bundle's head",
         "bundle"),
    Kind("re-sign the bundle under another key", lambda s: s.resign(s.entries, OTHER),
         "signature isn't the node's", "bundle"),
    Kind("cut the bundle and sign it anew", cut_bundle, "co-signed 13 entries, here are 10",
         "bundle", needs_heads=True),
    # The peers' heads, on their way to the auditor
    Kind("change a root in a peer's file", head_file(root="0" * 64), "isn't signed by its node",
         needs_heads=True),
    Kind("change a time in a peer's file", head_file(time="2026-01-01T00:00:00+00:00"),
         "the co-signature at", needs_heads=True),
    Kind("sign one's own head in a peer's name", own_witness,
         "signed by the ledger's own key", needs_heads=True),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_tampering_is_found_and_named(scene: Scene, kind: Kind) -> None:
    found(scene, kind)


def test_a_proof_of_one_entry_holds_for_that_entry_only(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "proof.json"
    proof = scene.north.ledger.prove(8, 13)
    file.write_text(json.dumps(proof))
    good = verify_proof(file, scene.north.node_key, scene.heads)
    assert good.complete, good.text
    assert "Entry 8 is in the ledger of 'north' at 13 entries" in good.text
    assert "south" in good.text
    forgeries = [
        {**proof, "entry": {**proof["entry"], "body": "{}"}},
        {**proof, "entry": {**proof["entry"], "index": 9}},
        {**proof, "entry": {**proof["entry"], "path": proof["entry"]["path"][1:]}},
        {**proof, "head": {**proof["head"], "size": 14}},
        {**proof, "head": {**proof["head"], "root": "0" * 64}},
        {**proof, "head": 3},
        {**proof, "head": scene.north.ledger.prove(8, 12)["head"]},
        {**proof, "head": scene.north.ledger.prove(8)["head"]},
        {**proof, "head": {**proof["head"], "size": 2**63}},
        {**proof, "entry": {**proof["entry"], "index": 8.0}},
        {**proof, "entry": {**proof["entry"], "index": True}},
        {**proof, "entry": {**proof["entry"], "path": proof["entry"]["path"] * 2000}},
    ]
    for forged in forgeries:
        file.write_text(json.dumps(forged))
        assert not verify_proof(file, scene.north.node_key, scene.heads).ok
    assert not verify_proof(file, "0" * 64).ok


def test_heads_of_keys_outside_the_roster_do_not_count(scene: Scene) -> None:
    keys = {each["witness_key"] for each in map(_read, scene.heads.iterdir())}
    check = scene.file, scene.north.node_key, owner_key_hex(OWNER), scene.heads
    pinned = verify(*check, peers=keys)
    assert pinned.complete
    assert "compare them with the roster" not in pinned.text
    assert "peers' keys were taken from their files" in verify(*check).text
    stranger = verify(*check, peers=list(keys)[:1])
    assert "no key of the roster" in stranger.problem


def _read(file: Path) -> Any:
    return json.loads(file.read_text())


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}', '{"format":"coterie-ledger-v1"}'])
def test_files_of_any_shape_are_findings(scene: Scene, text: str) -> None:
    for name in ("tampered.json", "peers/south.json"):
        (scene.folder / name).write_text(text if text.startswith("{") else "{" + text)
    assert not verify(scene.folder / "tampered.json").ok
    assert not verify(scene.file, heads=scene.heads).ok
    assert not verify_proof(scene.folder / "tampered.json").ok
    with pytest.raises(FileNotFoundError):
        verify(scene.file, heads=scene.folder / "none")
