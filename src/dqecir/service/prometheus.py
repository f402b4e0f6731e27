"""Metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one service, in a registry of its own, so that two services in a process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "dqecir_requests", "Requests by route and status", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "dqecir_request_seconds",
            "Time to the end of the answer",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "dqecir_batch_size", "Requests done together", buckets=_SIZES, registry=self.registry
        )

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Add a gauge ``name`` with the description ``what``.

        ``value`` is called whenever metrics are read.
        """
        Gauge(f"dqecir_{name}", what, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)
