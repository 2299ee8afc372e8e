"""Nodes whose own services are called as over the wire, without a wire in between."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from syft.service.context import AuthedServiceContext
from syft.types.errors import SyftException

from domains.rounds_service import CoterieRounds
from network.client import NodeRefused
from network.smpc.messages import OctetParts
from tests.domains.participating_domains import Domains


class NodeAtHand:
    """What a coordinator calls in place of a `NodeClient`: arguments and answers are the same.

    Args:
        says: given a method's name and what the node answers, what comes instead; a lying node's.
    """

    def __init__(
        self,
        name: str,
        domains: Domains,
        says: Callable[[str, Any], Any] = lambda method, answer: answer,
    ) -> None:
        self.name = name
        self._domains, self._says = domains, says

    def stream(
        self, method: str, timeout_s: float = 0, into: Any = None, most: int = 0, **arguments: Any
    ) -> Any:
        """See `NodeClient.stream`."""
        service: Any = CoterieRounds(None)  # type: ignore[arg-type]
        service.participation = self._domains.parts[self.name]
        ledger = self._domains.ledgers[self.name]
        service.desk = SimpleNamespace(
            plan=lambda plan_hash, caller: self._domains.plan,
            dataset=lambda name: self._domains.dataset(self.name),
            ledger=ledger,
            progress=lambda plan_hash: {
                "status": ledger.status(plan_hash),
                "reason": "",
                "attempts": ledger.attempts(plan_hash),
            },
        )
        server: Any = SimpleNamespace(id=None)
        caller = AuthedServiceContext.model_construct(server=server, credentials="the scientist")
        try:
            answer = self._says(method, getattr(service, method)(caller, **arguments))
        except SyftException as refused:
            raise NodeRefused(self.name, str(refused.public_message)) from None
        if not isinstance(answer, OctetParts):
            return answer
        content = answer.whole().tobytes()
        if into is None:
            return content
        into.write(content)
        into.sealed(())
        return len(content)
