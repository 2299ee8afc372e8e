"""What a server says about itself to whoever watches it: Prometheus metrics, nothing private.

No identity, path, plan or data set is in them: how much is asked is public on the wire anyway, and
times are whole minutes.
"""

import time
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE

__all__ = ["CONTENT_TYPE", "Health"]

_OUTCOMES = {2: "answered", 4: "refused", 5: "failed"}


class Health:
    """Counts requests by outcome and knows how long the server is up."""

    def __init__(self) -> None:
        # Beside each counter it would tell to the microsecond since when that counts.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._began = time.monotonic()
        self._requests = Counter(
            "coterie_requests", "Requests by outcome.", ["outcome"], registry=self._registry
        )
        for outcome in _OUTCOMES.values():
            self._requests.labels(outcome)
        uptime = Gauge("coterie_uptime_minutes", "Whole minutes up.", registry=self._registry)
        uptime.set_function(lambda: (time.monotonic() - self._began) // 60)
        about = Gauge("coterie_info", "Version.", ["version"], registry=self._registry)
        about.labels(version("coterie")).set(1)

    def count(self, status: int) -> None:
        """Count a request by its HTTP status."""
        self._requests.labels(_OUTCOMES.get(status // 100, "refused")).inc()

    def metrics(self) -> bytes:
        """The figures in Prometheus's text format."""
        return generate_latest(self._registry)
