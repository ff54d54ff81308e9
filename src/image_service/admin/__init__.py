"""Runs the commands for operators, on the database, storage and queue of a service that may be running."""
