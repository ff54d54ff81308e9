"""The judge of colours is a browser: it shows each original, and the thumbnail has to look the same.

    python -m tests.browser [--sort] [TEXT]

prints the table of all cases, or of those whose name contains the text.
"""
