"""Groups the repositories that share one connection."""

from sqlalchemy.ext.asyncio import AsyncConnection

from image_service.database.catalogue import CatalogueRepository, CatalogueStatements
from image_service.database.claims import ClaimRepository, ClaimStatements
from image_service.database.deliveries import DeliveryRepository, DeliveryStatements
from image_service.database.event_upkeep import EventRepository
from image_service.database.events import EventStatements
from image_service.database.images import ImageRepository, ImageStatements
from image_service.database.outputs import OutputRepository, OutputStatements
from image_service.database.removals import RemovalRepository
from image_service.database.scheduling import SchedulingRepository, SchedulingStatements
from image_service.database.webhooks import WebhookRepository, WebhookStatements


class SingleStatements:
    """The queries that are one statement each, so that they need no transaction around them."""

    images: ImageStatements
    claims: ClaimStatements
    outputs: OutputStatements
    scheduling: SchedulingStatements
    catalogue: CatalogueStatements
    events: EventStatements
    webhooks: WebhookStatements
    deliveries: DeliveryStatements
    removals: RemovalRepository

    def __init__(self, connection: AsyncConnection) -> None:
        self.images = ImageStatements(connection)
        self.claims = ClaimStatements(connection)
        self.outputs = OutputStatements(connection)
        self.scheduling = SchedulingStatements(connection)
        self.catalogue = CatalogueStatements(connection)
        self.events = EventStatements(connection)
        self.webhooks = WebhookStatements(connection)
        self.deliveries = DeliveryStatements(connection)
        self.removals = RemovalRepository(connection)
        self.connection = connection
        """For statements that no repository has: those of tests and benchmarks."""


class Repositories(SingleStatements):
    """All queries, including those that are several statements: for use inside a transaction."""

    images: ImageRepository
    claims: ClaimRepository
    outputs: OutputRepository
    scheduling: SchedulingRepository
    catalogue: CatalogueRepository
    events: EventRepository
    webhooks: WebhookRepository
    deliveries: DeliveryRepository

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__(connection)
        self.images = ImageRepository(connection)
        self.claims = ClaimRepository(connection)
        self.outputs = OutputRepository(connection)
        self.scheduling = SchedulingRepository(connection)
        self.catalogue = CatalogueRepository(connection)
        self.events = EventRepository(connection)
        self.webhooks = WebhookRepository(connection)
        self.deliveries = DeliveryRepository(connection)
