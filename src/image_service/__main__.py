"""The program: ``image-service``, and the same as ``python -m image_service``."""

from image_service.startup import prepare_process


def main() -> None:
    """Runs the program."""
    prepare_process()
    from image_service.cli import main as run  # noqa: PLC0415 — takes half a second, in which signals already count

    run()


if __name__ == "__main__":
    main()
