"""Reads fields of single bits: the most significant first in video codecs, the least significant first in JPEG XL."""

from typing import Final

_LONGEST_PREFIX: Final = 32
"""Zeros that an Exp-Golomb number can begin with; more would make it exceed 32 bits."""


class Bits:
    """Bytes that are read bit by bit."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data)
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        """Return the next ``count`` bits as an unsigned number.

        Raises:
            EOFError: there are not as many.
        """
        if count > self._left:
            raise EOFError
        self._left -= count
        return self._value >> self._left & ((1 << count) - 1)

    def read_exp_golomb(self) -> int:
        """Return the next number in Exp-Golomb code: ue(v) in ITU-T H.265 §9.2, uvlc() in AV1 §4.10.3.

        Raises:
            EOFError: it is cut off, or longer than any that is allowed.
        """
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > _LONGEST_PREFIX:
                raise EOFError
        return (1 << zeros) - 1 + self.read(zeros)


class BitsFromLeast:
    """Bytes that are read bit by bit, the least significant bit of each first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        """Return the next ``count`` bits as an unsigned number, whose lowest bit came first.

        Raises:
            EOFError: there are not as many.
        """
        if count > self._left:
            raise EOFError
        self._left -= count
        found = self._value & ((1 << count) - 1)
        self._value >>= count
        return found
