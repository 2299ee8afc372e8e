"""Syft guarded from the moment it is imported, whether that is before or after this.

Importing Syft takes seconds, and most of what people type needs none of it. So nothing here imports
Syft: its reader and its clients are replaced as soon as its module has run, before whoever imported
it gets hold of it.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from network.answers import check_syft_answers
from network.capnproto import BytesRefused
from network.reader_names import ANSWERS, Names


def guard_syft(then: Callable[[], object]) -> None:
    """Make Syft's clients in this process read strictly and check answers before they do.

    Args:
        then: called once that is so: at once if Syft is imported already, else when it is.
    """

    def guard() -> None:
        install_strict_reader()
        check_syft_answers()
        then()

    if "syft" in sys.modules:
        guard()
    else:
        sys.meta_path.insert(0, _Watch(guard))


def install_strict_reader(names: Names = ANSWERS) -> None:
    """Make Syft's own reads in this process strict; the last list given counts."""
    import syft.serde.recursive as syft_reader

    def read_strictly(blob: bytes) -> Any:
        from network.reader import read  # it needs Syft's types, which may not all be there yet

        return read(blob, names)

    syft_reader.rs_bytes2object = read_strictly
    syft_reader.rs_proto2object = _refuse_open_frame


def leave_texts_alone() -> None:
    """Keep a server from looking for objects in each character of a text that it answers.

    That took longer than many a small call.
    """
    import syft.service.service as services
    from syft.types.syft_object import attach_attribute_to_syft_object

    def attach(result: Any, attr_dict: dict[str, Any]) -> None:
        if not isinstance(result, str):
            attach_attribute_to_syft_object(result, attr_dict)

    services.attach_attribute_to_syft_object = attach


def _refuse_open_frame(_: Any) -> Any:
    raise BytesRefused("Only whole messages are read.")


class _Watch(MetaPathFinder):
    """Finds Syft as Python does, and calls `guard` when its module has run."""

    def __init__(self, guard: Callable[[], None]) -> None:
        self._guard = guard

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "syft":
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((each for each in found if each is not None), None)
        if spec is not None and spec.loader is not None:
            self._follow(spec.loader)
        return spec

    def _follow(self, loader: Any) -> None:
        run = loader.exec_module

        def run_and_guard(module: ModuleType) -> None:
            run(module)
            self._guard()

        loader.exec_module = run_and_guard
