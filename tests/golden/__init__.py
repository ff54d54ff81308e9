"""Compares the renderer's pictures with a reference that shares no code with it: float64 arithmetic on known pixels.

``pictures`` draws the pictures, ``files`` and ``profiles`` write the files to render, ``reference`` computes the
expected result, and ``comparison`` compares. A picture that differs too much is saved, beside the expected one, under
``build/golden``.
"""
