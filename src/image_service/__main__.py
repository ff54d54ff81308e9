"""``python -m image_service`` is the same program as ``image-service``."""

from image_service.cli import main

if __name__ == "__main__":
    main()
