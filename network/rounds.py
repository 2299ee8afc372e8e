"""The coordinator's side of a round: advertise, share, reveal, among all domains of a roster.

The coordinator only carries messages. It holds no key and no share that alone says anything: it
sees signed public keys, seeds sealed between domains, and finally every domain's share of the sum,
which add up to the noised total. It may drop or garble messages; then no total opens.
"""

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from network.client import NodeClient, NodeRefused, NodeUnreachable
from network.smpc.sharing import SealedSeed, reveal


class RoundAborted(Exception):
    """An attempt ended without a total; nothing of it can be opened any more.

    Attributes:
        domain: the domain that failed.
        phase: 'advertise', 'share' or 'reveal'.
    """

    def __init__(self, domain: str, phase: str, reason: str, *, lost: bool) -> None:
        super().__init__(reason)
        self.domain = domain
        self.phase = phase
        self.lost = lost


@dataclass(frozen=True)
class Release:
    """What one round opened.

    Attributes:
        total: int64, shape [P]: the noised sum in the step's integer units.
        seconds: wall time per phase, rounded to 10 ms.
    """

    total: NDArray[np.int64]
    seconds: Mapping[str, float]


def run_attempt(
    nodes: Mapping[str, NodeClient],
    plan_hash: str,
    step: str,
    release: int,
    attempt: int,
    state: bytes,
    revealed: bool,
) -> Release:
    """Run one attempt of one release with every domain of the roster.

    Args:
        revealed: every domain has charged this attempt already; only fetch its kept shares.

    Raises:
        RoundAborted: a domain did not answer or refused. Take the next attempt number.
    """
    asked: dict[str, Any] = {
        "plan_hash": plan_hash, "step": step, "release": release, "attempt": attempt
    }  # fmt: skip
    seconds: dict[str, float] = {}
    payload = np.frombuffer(state, dtype=np.uint8)

    if revealed:
        shares = _phase("reveal", nodes, seconds, lambda _: {**asked, "seeds": "[]"})
        return Release(_opened(shares), seconds)
    adverts = _phase("advertise", nodes, seconds, lambda _: asked)
    advert_list = json.dumps([json.loads(a) for a in adverts.values()])
    sealed = _phase(
        "share", nodes, seconds, lambda _: {**asked, "adverts": advert_list, "state": payload}
    )
    seeds = [SealedSeed.from_dict(s) for answer in sealed.values() for s in json.loads(answer)]
    shares = _phase(
        "reveal",
        nodes,
        seconds,
        lambda name: {
            **asked,
            "seeds": json.dumps([s.to_dict() for s in seeds if s.receiver == name]),
        },
    )
    return Release(_opened(shares), seconds)


def _opened(shares: Mapping[str, NDArray]) -> NDArray[np.int64]:
    rings = {name: np.asarray(share).view(np.uint64) for name, share in shares.items()}
    return reveal(rings, sorted(rings))


def _phase(
    phase: str,
    nodes: Mapping[str, NodeClient],
    seconds: dict[str, float],
    arguments: Callable[[str], dict[str, Any]],
) -> dict[str, Any]:
    """Call one method on every domain at once; name the first domain that fails."""
    began = time.monotonic()
    with ThreadPoolExecutor(len(nodes)) as pool:
        calls = {
            name: pool.submit(node.call, phase, **arguments(name)) for name, node in nodes.items()
        }
    seconds[phase] = round(time.monotonic() - began, 2)
    answers: dict[str, Any] = {}
    for name, call in calls.items():
        try:
            answers[name] = call.result()
        except NodeUnreachable as error:
            raise RoundAborted(name, phase, str(error), lost=True) from None
        except NodeRefused as error:
            raise RoundAborted(name, phase, str(error), lost=False) from None
    return answers
