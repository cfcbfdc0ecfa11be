"""Random numbers that are the same on every machine: each is an integer hash of seed, account, list, row and place.

There is no generator state, so an account does not depend on those before it; and no floating point or library
distribution, so it does not depend on the machine or the version of numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

LANE_BITS: Final = 16
_LANES: Final = 4
_LANE_SPAN: Final = 1 << LANE_BITS
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)


def mix(words: Words) -> Words:
    """Return the SplitMix64 finaliser of each word: every bit of the result depends on every bit of the word."""
    mixed = words ^ (words >> np.uint64(30))
    mixed *= _FIRST
    mixed ^= mixed >> np.uint64(27)
    mixed *= _SECOND
    mixed ^= mixed >> np.uint64(31)
    return mixed


def roots(accounts: Ints, seed: int, reserved: int) -> Words:
    """Return each account's root word. The first `reserved` accounts are the same for every seed."""
    base = mix(np.full(1, seed % (1 << 64), np.uint64) * _GOLDEN + _GOLDEN)[0]
    seeds = np.where(accounts <= reserved, np.uint64(0), base)
    return mix(accounts.astype(np.uint64) * _GOLDEN + seeds)


def _step(number: int) -> np.uint64:
    return np.uint64(number * int(_GOLDEN) % (1 << 64))


class WeightedChoice:
    """A choice among weights: a table from a lane's 65,536 values to the chosen index."""

    def __init__(self, weights: Sequence[int]) -> None:
        """Take whole-number weights, at least one of them above 0."""
        ends = np.cumsum(np.asarray(weights, np.int64)) * _LANE_SPAN // sum(weights)
        self.table = np.searchsorted(ends, np.arange(_LANE_SPAN), side="right").astype(np.int64)


class Dice:
    """Draws for the rows of one list (or for the people themselves), 16 bits at a time, always in the same order."""

    def __init__(self, keys: Words) -> None:
        """Take one key word a row."""
        self._keys = keys
        self._drawn = 0
        self._word = keys

    @classmethod
    def of_people(cls, root: Words, tag: int) -> Dice:
        """Draw for people: `tag`: one for each purpose."""
        return cls(root ^ np.uint64(tag << 48))

    @classmethod
    def of_rows(cls, root: Words, tag: int, person: Ints, ordinal: Ints) -> Dice:
        """Draw for rows: row `ordinal` (0 to 4095) of person `person` in the list `tag`."""
        return cls(root[person] ^ ((ordinal.astype(np.uint64) + np.uint64(1)) << np.uint64(36)) ^ np.uint64(tag << 48))

    def word(self) -> Words:
        """Draw 64 bits a row; the rest of the previous word is dropped."""
        words = (self._drawn + _LANES - 1) // _LANES
        self._drawn = (words + 1) * _LANES
        return mix(self._keys + _step(words + 1))

    def lane(self) -> Ints:
        """Draw 16 bits a row: 0 to 65535."""
        words, lane = divmod(self._drawn, _LANES)
        if lane == 0:
            self._word = mix(self._keys + _step(words + 1))
        self._drawn += 1
        return ((self._word >> np.uint64(lane * LANE_BITS)) & np.uint64(_LANE_SPAN - 1)).view(np.int64)

    def below(self, limit: int | Ints) -> Ints:
        """Draw a whole number from 0 to limit - 1, `limit` up to 65,536 and of each row its own if an array."""
        return (self.lane() * limit) >> LANE_BITS

    def below_wide(self, limit: int) -> Ints:
        """Draw a whole number from 0 to limit - 1, `limit` up to 2**31."""
        high = self.lane() << LANE_BITS
        return ((high | self.lane()) * limit) >> (2 * LANE_BITS)

    def chance(self, of_ten_thousand: int) -> Flags:
        """Draw true for so many in ten thousand."""
        return self.lane() < (of_ten_thousand * _LANE_SPAN // 10_000)

    def choose(self, weighted: WeightedChoice) -> Ints:
        """Draw an index by weight."""
        return weighted.table[self.lane()]
