"""The pipeline from a file to its thumbnails; ``steps`` can be imported without an image library."""
