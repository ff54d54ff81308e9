"""The command line.

Commands import what they run when they run it: a health check, made every few seconds, loads none of the service.
"""

# The order of the imports is the order of the commands in the help.
from image_service.cli import run, render, recipes, admin, webhooks  # isort: skip
from image_service.cli.app import app

__all__ = ["admin", "app", "main", "recipes", "render", "run", "webhooks"]


def main() -> None:
    """Runs the program."""
    app()
