"""Adapters of ``ports.TaskQueue``, which carries work from the API to the workers."""
