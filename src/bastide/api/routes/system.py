"""For whoever operates the server: public, and silent about anybody's things."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from bastide.api.context import ServicesOf
from bastide.api.envelope import Envelope, success

router = APIRouter(tags=["System"])


@router.get("/healthz", summary="Whether the process answers")
async def healthz() -> Envelope:
    """Alive."""
    return success(status="ok")


@router.get("/readyz", summary="Whether the database answers too")
async def readyz(services: ServicesOf) -> Envelope:
    """Ready; `not_ready` when the database does not answer."""
    await services.database.ping()
    return success(status="ready")


@router.get("/metrics", summary="Counters for Prometheus", response_class=Response)
async def metrics(services: ServicesOf) -> Response:
    """In the text format of Prometheus."""
    return Response(generate_latest(services.metrics), media_type=CONTENT_TYPE_LATEST)
