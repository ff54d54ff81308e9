"""The processes of the service: wire, run until a signal, shut down.

Each has a module of its own, so that a worker does not load the API, nor either of them the migrations: together they
are half of what there is to load, in time and in memory.
"""
