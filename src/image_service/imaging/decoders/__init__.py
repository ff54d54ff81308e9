"""Decoders that do better than Pillow's own, each behind Pillow's interface for one.

Each is a file that is opened, told by ``draft`` which size is wanted of it, and then loads a picture of at least that
size with detail to spare. Whatever it cannot do, it leaves to Pillow's decoder, whose verdict on a file stands.
"""
