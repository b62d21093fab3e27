"""Counts and times of requests, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram


class RequestMetrics:
    """Requests by method, route template and status; never by what a client wrote."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "bastide_http_requests_total",
            "Requests answered",
            ("method", "route", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "bastide_http_request_seconds",
            "Time from request to the end of its answer",
            ("method", "route"),
            registry=registry,
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)
