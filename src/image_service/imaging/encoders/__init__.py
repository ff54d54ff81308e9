"""Encoders that Pillow lacks, or whose use of memory it does not bound."""
