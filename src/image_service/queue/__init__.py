"""Adapters that carry work from the API to the workers: ``ports.TaskQueue``."""
