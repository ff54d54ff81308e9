"""``/health``: health for people, load balancers and orchestrators."""

from datetime import UTC, datetime
from typing import Any, Final

from fastapi import Request, Response

from image_service.api.caching import NO_STORE
from image_service.api.dependencies import context_of
from image_service.api.routing import Router
from image_service.api.schemas import Alive, HealthReport, ServicesHealth
from image_service.services.health import Condition

router: Final = Router(prefix="/health", tags=["health"])

_UNHEALTHY: Final[dict[int | str, dict[str, Any]]] = {
    503: {
        "model": HealthReport,
        "description": "Uploads cannot be accepted: the database or the storage is unavailable.",
        "content": {
            "application/json": {
                "example": {
                    "status": "unhealthy",
                    "services": {"database": False, "rabbitmq": True, "storage": True},
                    "waiting": {"normal": 0, "express": 2, "backfill": 0},
                    "timestamp": "2026-11-25T07:30:00.120000Z",
                    "mode": "distributed",
                }
            }
        },
    }
}


@router.get("", summary="Is the service healthy?", responses=_UNHEALTHY)
async def get_health(request: Request, response: Response) -> HealthReport:
    """Checks every dependency, for two seconds at most and once a second: between two checks the last result is given.

    Responds with 200 while uploads are accepted, otherwise 503.
    """
    return await _report(request, response)


@router.get("/ready", summary="Can the service take requests?", responses=_UNHEALTHY)
async def get_readiness(request: Request, response: Response) -> HealthReport:
    """The same as `/health`. Without its broker the service is ready: it stores uploads and queues them later."""
    return await _report(request, response)


@router.get("/live", summary="Does the process answer?")
async def get_liveness() -> Alive:
    """Checks no dependency: restarting this process would not bring a database back."""
    return Alive()


async def _report(request: Request, response: Response) -> HealthReport:
    context = context_of(request)
    health = await context.services.health.run()
    response.status_code = 503 if health.condition is Condition.UNHEALTHY else 200
    response.headers["Cache-Control"] = NO_STORE
    return HealthReport(
        status=health.condition,
        services=ServicesHealth(database=health.database, rabbitmq=health.queue, storage=health.storage),
        waiting=None if health.waiting is None else dict(health.waiting),
        timestamp=datetime.now(UTC),
        mode="standalone" if context.standalone else "distributed",
    )
