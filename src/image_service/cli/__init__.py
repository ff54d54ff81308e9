"""The command line: what the program can be asked to do.

The program itself is imported by the commands that run it: a health check, made every few seconds, loads none of it.
"""

# In the order of the help.
from image_service.cli import run, render, admin  # isort: skip
from image_service.cli.app import app

__all__ = ["admin", "app", "main", "render", "run"]


def main() -> None:
    """Run the program."""
    app()
