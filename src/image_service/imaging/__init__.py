"""Thumbnails of images that may be hostile.

Each package uses only those above it here:

- ``formats``: containers and headers, without an image library;
- ``decoders``: what Pillow's own decoders do not do, or not fast enough;
- ``render``: the pipeline from a file to its thumbnails;
- ``isolation``: the sandboxed processes that it runs in.
"""
