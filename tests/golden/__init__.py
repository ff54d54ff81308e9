"""The renderer's pictures against a reference that shares no code with it: float64 arithmetic on known pixels.

``pictures`` draws, ``files`` and ``profiles`` write what is rendered, ``reference`` computes what must come out, and
``comparison`` holds the two against each other. A picture that differs too much is saved, beside what it should have
been, under ``build/golden``.
"""
