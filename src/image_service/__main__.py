"""Makes ``python -m image_service`` the same program as ``image-service``."""

from image_service.cli import main

if __name__ == "__main__":
    main()
