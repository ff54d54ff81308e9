"""Adapters of ``ports.Storage``."""
