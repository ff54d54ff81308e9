"""Decoders that replace or complete Pillow's own, one module a format or library.

A decoder of our own has Pillow's interface: a file that is opened, that ``draft`` tells which size is wanted, and that
then loads a picture of at least that size with detail to spare. Files that it cannot decode are left to Pillow's
decoder, which has the final verdict.
"""
