"""Wires the application from its settings."""

from image_service.bootstrap.admin import AdminServices, admin_services
from image_service.bootstrap.api import ApiServices, api_services
from image_service.bootstrap.resources import Resources, open_resources
from image_service.bootstrap.shared import backlog_gauges, storage_binding
from image_service.bootstrap.worker import (
    WorkerServices,
    decoder_pool,
    observed_renderer,
    processing,
    worker_services,
)

__all__ = [
    "AdminServices",
    "ApiServices",
    "Resources",
    "WorkerServices",
    "admin_services",
    "api_services",
    "backlog_gauges",
    "decoder_pool",
    "observed_renderer",
    "open_resources",
    "processing",
    "storage_binding",
    "worker_services",
]
