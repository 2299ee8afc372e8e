"""A scientist's handle on domains of one process: calls go through the nodes' own service."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from syft.service.context import AuthedServiceContext
from syft.types.errors import SyftException

from domains.tensors import KeptTensors
from domains.tensors_service import CoterieTensors
from network.client import NodeRefused
from network.tensor_runs import Tensors
from tests.domains.domains_of_tensors import Domains


@dataclass
class Line:
    """What `NodeClient` is over HTTP, without the wire."""

    domains: Domains
    name: str

    def stream(self, method: str, timeout_s: float, **arguments: Any) -> Any:
        """The service's answer; its refusals as a client sees them."""
        service = CoterieTensors(None)  # type: ignore[arg-type]
        service.desk = SimpleNamespace(plan=lambda plan_hash, _: self.domains.plan)  # type: ignore[assignment]
        service.participation = SimpleNamespace(tensors=self._tensors)  # type: ignore[assignment]
        context = AuthedServiceContext.model_construct(credentials="f" * 64)
        try:
            # Past Syft's own wrapper, which needs a whole server.
            return getattr(CoterieTensors, method).__wrapped__(service, context, **arguments)
        except SyftException as error:
            raise NodeRefused(self.name, error.public_message) from None

    @contextmanager
    def _tensors(self, _: str) -> Iterator[KeptTensors]:
        yield self.domains.kept[self.name]


def handle_on(domains: Domains, folder: Path, dealer: str | None = None) -> Tensors:
    """What `fed.tensors(plan)` gives, of a plan that reads no state."""
    lines: Any = {name: Line(domains, name) for name in domains.kept}
    program: Any = SimpleNamespace(state=dict[str, torch.Tensor]())
    return Tensors(lines, program, domains.plan, folder, dealer)
