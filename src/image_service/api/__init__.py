"""The HTTP API: turns requests into calls of services, and their results into responses."""
