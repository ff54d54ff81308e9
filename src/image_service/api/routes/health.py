"""``/health``: for people, load balancers and orchestrators."""

from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter, Response

from image_service.api.schemas import Alive, HealthReport, ServicesHealth
from image_service.services.health import Condition, HealthCheck

_UNHEALTHY: Final[dict[int | str, dict[str, Any]]] = {
    503: {
        "model": HealthReport,
        "description": "Uploads cannot be kept: the database or the storage is away.",
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


def health_router(check: HealthCheck, *, standalone: bool) -> APIRouter:
    """The operations that tell how the service is."""
    router = APIRouter(prefix="/health", tags=["health"])

    async def report(response: Response) -> HealthReport:
        health = await check.run()
        response.status_code = 503 if health.condition is Condition.UNHEALTHY else 200
        response.headers["Cache-Control"] = "no-store"
        return HealthReport(
            status=health.condition,
            services=ServicesHealth(database=health.database, rabbitmq=health.queue, storage=health.storage),
            waiting=None if health.waiting is None else dict(health.waiting),
            timestamp=datetime.now(UTC),
            mode="standalone" if standalone else "distributed",
        )

    @router.get("", summary="Is the service healthy?", responses=_UNHEALTHY)
    async def get_health(response: Response) -> HealthReport:
        """Asks every part, each time: two seconds at most. 200 while uploads are accepted, 503 while they are not."""
        return await report(response)

    @router.get("/ready", summary="May requests be sent here?", responses=_UNHEALTHY)
    async def get_readiness(response: Response) -> HealthReport:
        """The same as `/health`: a service without its broker is ready, for it keeps what it is given."""
        return await report(response)

    @router.get("/live", summary="Does the process answer?")
    async def get_liveness() -> Alive:
        """Asks nobody: restarting this process would not bring a database back."""
        return Alive()

    return router
