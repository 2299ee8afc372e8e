"""Syft is guarded from `import coterie` on, and isn't imported without need."""

import subprocess
import sys
from importlib import import_module

import pytest
import syft.serde.recursive as syft_reader
from syft.client.client import HTTPConnection
from syft.serde.deserialize import _deserialize
from syft.serde.serialize import _serialize
from syft.types.syft_object_registry import SyftObjectRegistry

import coterie as ct
from coterie.commands import output
from coterie.exit_codes import ExitCode
from network import answers, guard
from network.capnproto import BytesRefused
from tests.hostile.attacks import alias

WITHOUT = """
import sys
import coterie, coterie.cli
heavy = {"syft", "torch", "numpy", "pandas", "matplotlib", "sqlalchemy"} & set(sys.modules)
assert not heavy, heavy
assert "connect" in dir(coterie)
"""


def test_neither_the_package_nor_the_command_imports_what_takes_seconds() -> None:
    command = [sys.executable, "-c", WITHOUT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr


def is_guarded() -> bool:
    assert _deserialize(_serialize({"a": 1}, to_bytes=True), from_bytes=True) == {"a": 1}
    with pytest.raises(BytesRefused):
        _deserialize(alias("builtins.eval", "1+1"), from_bytes=True)
    return HTTPConnection.make_call is answers._make_call


def test_syft_is_guarded_when_it_is_imported_after_coterie() -> None:
    """As in every process of these tests: the first import of all is coterie's (conftest)."""
    assert any(isinstance(finder, guard._Watch) for finder in sys.meta_path)
    assert syft_reader.rs_bytes2object.__module__ == guard.__name__
    assert SyftObjectRegistry.has_serde_class("CoteriePlanChange", 1)
    assert is_guarded()


def test_syft_is_guarded_when_it_was_imported_before(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(syft_reader, "rs_bytes2object", None)
    monkeypatch.setattr(HTTPConnection, "make_call", None)
    guard.guard_syft(lambda: called.append(1))
    assert called == [1]
    assert is_guarded()


def test_every_public_name_is_there() -> None:
    assert sorted(ct.__all__) == sorted({*ct._HOMES, "use_owner_key"})
    assert all(getattr(ct, name) is not None for name in ct.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ct.nothing


def test_every_error_with_an_exit_code_is_there() -> None:
    for name, code in output._CODES.items():
        module, _, kind = name.rpartition(".")
        error = getattr(import_module(module), kind)
        assert output.code_of(error.__new__(error)) is code
    assert output.code_of(ValueError()) is ExitCode.UNEXPECTED
