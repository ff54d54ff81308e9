"""Adapters that keep files: ``ports.Storage``."""
