"""What accounts of the node send it that aren't allowed to, or that nobody should."""

import json
import time

import numpy as np
import pyarrow as pa

from network.replay import ISSUED
from tests.hostile.attacks import (
    Target,
    alias,
    array,
    blob_of,
    call,
    crafted,
    list_of_nothing,
    mapping,
    message,
    of_one_hash,
    packed,
    post,
    sequence,
    signed,
)  # fmt: skip
from tests.network_of_three import counting_plan


def replayed(target: Target) -> str:
    blob = signed(packed(message(target)), target.key)
    assert post(target, blob).startswith("answered")
    return post(target, blob)


def replayed_resigned(target: Target) -> str:
    """The same call id under a fresh signature of a slightly other message."""
    first = message(target)
    assert post(target, signed(packed(first), target.key)).startswith("answered")
    again = message(target, id=first.id, path="coterie.budgets")
    return post(target, signed(packed(again), target.key))


def at_another_time(seconds: int):  # type: ignore[no-untyped-def]
    def run(target: Target) -> str:
        late = message(target, kwargs={ISSUED: int(time.time()) + seconds})
        return post(target, signed(packed(late), target.key))

    return run


def without_id(target: Target) -> str:
    fields = {
        "server_uid": packed(target.node.server_uid),
        "path": packed("coterie.describe"),
        "args": packed([]),
        "kwargs": packed({}),
        "blocking": packed(True),
    }
    return post(target, signed(crafted("SyftAPICall", fields), target.key))


def nested(depth: int) -> bytes:
    blob = packed(1)
    for _ in range(depth):
        blob = sequence("list", blob)
    return blob


def other_plan(method: str, **more: object):  # type: ignore[no-untyped-def]
    """A rival asks for a plan that isn't hers."""

    def run(target: Target) -> str:
        return call(target.rival, f"coterie.{method}", plan_hash=plan_of(target), **more)

    return run


_plans: dict[str, str] = {}


def plan_of(target: Target) -> str:
    """A plan that was submitted and never approved."""
    if "hash" not in _plans:
        federation = target.network.federation
        plan = counting_plan(federation.data("interactions"), "hostile", 0.1)
        federation.submit(plan)
        _plans["hash"] = federation.bind(plan).hash
    return _plans["hash"]


def rounds(method: str, **more: object):  # type: ignore[no-untyped-def]
    def run(target: Target) -> str:
        where = {"plan_hash": plan_of(target), "step": "count", "release": 0, "attempt": 0}
        return call(target.node, f"coterie.{method}", **where, **more)

    return run


def rivals_requests(target: Target) -> str:
    plan_of(target)
    found = target.rival.call_syft("request.get_all")
    return "refused: none listed" if not found else f"answered: {found}"


def rivals_plans(target: Target) -> str:
    plan_of(target)
    found = json.loads(target.rival.call("plans"))
    return "refused: none listed" if not found else f"answered: {found}"


def rows_of_the_twin(target: Target) -> str:
    """The private half of the native data set, through every pointer it names."""
    found = []
    for dataset in target.node.call_syft("dataset.get_all"):
        for asset in dataset.asset_list:
            for path in ("action.get", "action.get_pointer", "action.np_array", "action.exists"):
                found.append(call(target.node, path, uid=asset.action_id))
    assert found
    return next((f for f in found if not f.startswith("refused")), found[0])


def forged_plan(target: Target, **changed: object) -> str:
    federation = target.network.federation
    bound = federation.bind(counting_plan(federation.data("interactions"), "forged", 0.1))
    text = json.dumps({**json.loads(bound.to_json()), **changed})
    return call(target.node, "coterie.submit", plan=text, signature="00" * 64)


REFUSED_PATHS = [
    "code.submit", "code.call", "code.get_all", "code.request_code_execution", "policy.add",
    "policy.get_all", "api.add", "api.call", "api.call_private", "api.view", "worker_pool.launch",
    "worker_image.submit", "worker_image.build", "worker.start_workers", "worker.get_all",
    "job.get_all", "job.get", "log.get_stdout", "output.get", "sync.sync_items", "sync._get_state",
    "migration.get_migration_data", "migration.apply_migration_data", "blob_storage.get_all",
    "blob_storage.allocate", "blob_storage.get_by_uid", "action.set", "action.execute",
    "action.get_pointer", "action.delete", "dataset.add", "dataset.delete", "project.create",
    "network.exchange_credentials_with", "network.add_peer", "settings.update",
    "settings.allow_guest_signup", "user.create", "user.update", "user.delete", "user.get_all",
    "user.register", "request.apply", "request.undo", "request.delete_by_uid", "queue", "login",
    "api", "coterie.recommend", "coterie.load_report", "coterie.ledger", "coterie.approve",
    "coterie.__class__", "__init__", "../../metadata", "notifier.turn_on", "code_history.get",
    "attestation.attest_cpu", "enclave.get_all", "data_subject.get_all", "coterie.members",
    "coterie.renew", "coterie.expel", "coterie.status", "coterie.revoke", "coterie.preapprove",
    "coterie.weigh", "coterie.rules", "coterie.preview_rules", "coterie.write_rules",
    "coterie.envelopes", "coterie.discard", "user.request_password_reset", "user.search",
    "request.approve", "request.filter_all_info", "settings.enable_notifications",
    "settings.set_email_rate_limit", "settings.enable_eager_execution", "worker.delete",
    "action.service_method", "blob_storage.write_to_disk", "blob_storage.mount_azure",
    "dataset.upload", "network.delete_peer", "sync.resolve", "notifications.send",
]  # fmt: skip
AUDITOR_PATHS = [
    "dataset.get_all", "action.get_mock", "coterie.quote", "coterie.submit", "coterie.plan",
    "coterie.open", "coterie.reveal", "coterie.recommend", "request.get_all", "user.create",
    "user.get_by_verify_key", "request.apply", "coterie.members", "coterie.expel",
    "coterie.status", "coterie.withdraw", "coterie.advertise", "coterie.finish", "coterie.revoke",
    "dataset.search", "dataset.get_by_id", "notifications.get_all_unread", "job.get_all",
    "coterie.weigh", "coterie.rules", "coterie.preview_rules", "coterie.write_rules",
    "coterie.tell",
]  # fmt: skip


def zstd_bomb() -> bytes:
    """2 kB that unpack to 64 MiB."""
    return bytes(pa.compress(bytes(2**26), codec="zstd", asbytes=True))


CRAFTED = {
    "a generic alias of os.system": alias("os.system", "id"),
    "a generic alias of builtins.eval": alias("builtins.eval", "1+1"),
    "a generic alias of types.FunctionType": alias("types.FunctionType", 1),
    "a generic alias of typing itself": alias("typing.get_type_hints", int),
    "a special generic alias": blob_of("_SpecialGenericAlias", b"list:1"),
    "a class by name": blob_of("type", b"Worker:1"),
    "a union that is reduced": blob_of("UnionType", packed((1, 2))),
    "a type variable": blob_of("TypeVar", b"T"),
    "a path object": blob_of("pathlib_PosixPath", packed("/etc/passwd")),
    "a mapping whose factory is called": blob_of("defaultdict", packed((packed(int), packed({})))),
    "an Arrow data frame": blob_of("pandas_dataframe", b"PAR1" + bytes(64) + b"PAR1"),
    "a connection to another host": crafted("HTTPConnection", {"url": packed("http://evil.example")}),
    "a server in the call": crafted("PythonConnection", {}),
    "an action object": crafted("ActionObject", {}),
    "code to submit": crafted("SubmitUserCode", {"code": packed("import os")}),
    "a custom policy": crafted("SubmitUserPolicy", {"code": packed("import os")}),
    "a file deposit": crafted("OnDiskBlobDeposit", {"path": packed("/tmp/x")}),
    "a retrieval by URL": crafted("BlobRetrievalByURL", {"url": packed("file:///etc/passwd")}),
    "a database to open": crafted("SQLiteDBConfig", {"path": packed("/")}),
    "an unknown name": crafted("syft.user.Anything", {}),
    "a name with line breaks": crafted("x\n{\"event\": \"approved\"}", {}),
    "an id with undeclared fields": crafted(
        "UID", {"value": packed(bytes(16)), "__class__": packed(1)}
    ),
    "an id that allocates a terabyte": crafted("UID", {"value": packed(2**40)}),
    "a field twice": crafted("UID", {"value": packed(bytes(16)), "value ": packed(1)}),
    "a version that doesn't exist": crafted("UID", {"value": packed(bytes(16))}, version=-7),
    "150 nested lists": nested(150),
    "an integer of 4 kB": blob_of("int", b"\x7f" * 4096),
    "a float of 4 kB": blob_of("float", b"0x1." + b"f" * 4096),
    "text that isn't": blob_of("str", b"\xff\xfe"),
    "an unhashable key": mapping("dict", {packed([1]): packed(1)}),
    "a key of three bytes": blob_of("nacl_verify_key", b"abc"),
    "an array of a terabyte": array(b"\x28\xb5\x2f\xfd" + bytes(16), 2**40, "int8"),
    "an array of negative size": array(b"x", -1, "int8"),
    "an array of objects": array(b"x", 8, "object"),
    "an array with a structured dtype": array(b"x", 8, "i4,(1000000,1000000)f8"),
    "an lz4 bomb": array(b"\x04\x22\x4d\x18" + bytes(200), 64 * 2**20 + 1, "uint8"),
    "a zip bomb": array(b"PK\x03\x04" + bytes(200), 2**26, "uint8"),
    "a zstd bomb": array(zstd_bomb(), 2**20, "uint8"),
    "a zstd bomb that claims 63 MiB": array(zstd_bomb(), 63 * 2**20, "uint8"),
    "a brotli bomb": array(pa.compress(bytes(2**25), codec="brotli", asbytes=True), 2**20, "uint8"),
    "an LZ4 frame bomb": array(pa.compress(bytes(2**25), codec="lz4", asbytes=True), 99, "uint8"),
    "a shape whose product wraps": array(packed(np.zeros(1)), 2**32, "float64"),
    "a text of a thousand zero bytes as a key": blob_of("nacl_verify_key", bytes(1000)),
    "a time far away": blob_of("datetime_datetime", packed("9999999-01-01")),
    "a mapping that holds itself by name": mapping("OrderedDict", {packed("a"): packed(1)}),
    "a method's signature": blob_of("inspect_Signature", packed({"parameters": []})),
    "a function": blob_of("function", b"os.system"),
    "a module": blob_of("module", b"os"),
    "a partial": blob_of("functools_partial", packed(("os.system", "id"))),
    "a regular expression": blob_of("re_pattern", packed("(a+)+$")),
    "an HTML object": crafted("HTMLObject", {"value": packed("<script>")}),
    "a job": crafted("Job", {"node_uid": packed("x")}),
    "a migration": crafted("MigrationData", {"store_objects": packed({})}),
    "a sync item": crafted("SyncState", {"objects": packed({})}),
    "a user": crafted("User", {"role": packed("ADMIN")}),
    "a request change": crafted("UserCodeStatusChange", {"value": packed(True)}),
    "a gzip bomb": array(b"\x1f\x8b\x08" + bytes(200), 2**26, "uint8"),
    "3,000 keys of one hash": of_one_hash(3000),
    "a set of one hash": blob_of("set", of_one_hash(100)),
    "a list of a million nothings": list_of_nothing(10**6),
    "20,000 plain values": sequence("list", *[packed(1)] * 20_000),
    "text in place of a type": alias("typing.List", "__import__('os').system('id')"),
    "a packed array of packed arrays": blob_of("numpy_ndarray", array(b"x", 1, "int8")),
}  # fmt: skip

ROUND_CALLS: dict[str, dict[str, object]] = {
    "advertise": {},
    "share": {"adverts": "[]", "state": np.zeros(4, np.uint8), "held": "{}"},
    "reveal": {"seeds": "[]", "notes": "{}"},
    "confirm": {"receipts": "[]"},
    "unmask": {"confirmations": "[]", "cosignatures": "{}"},
}
