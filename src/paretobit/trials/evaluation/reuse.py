"""Results that will be needed again, within a budget of bytes: the ones that save most are kept."""

import heapq
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass

from torch import Tensor

_KEYS = 200_000
_BYTES_A_SECOND = 8e9  # to hold a result means fresh memory for the next one, at this rate
_REMEMBERED = 4096
_HALF_LIFE = 64
_PATIENCE = 4
_KNOCKS = 8


@dataclass
class _Entry:
    values: list[Tensor]
    size: int
    worth: float  # seconds saved per byte
    priority: float = 0.0


class Kept:
    """Tensors by key, one for each batch of a split.

    Which stay is decided as in Greedy-Dual-Size-Frequency (Cherkasova 1998): what saves least per byte
    goes first, and what was not asked for lately falls behind.

    Args:
        budget: Bytes that all of them may take together; 0 keeps nothing.

    Attributes:
        used: Bytes taken, those reserved included.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.used = 0
        self._numbers: dict[Hashable, int] = {}
        self._entries: dict[int, _Entry] = {}
        self._reserved: dict[int, tuple[int, float]] = {}
        self._heap: list[tuple[float, int]] = []
        self._clock = 0.0

    def tidy(self) -> bool:
        """Before a run: give back what an unfinished one reserved; forget all once there are too many keys.

        Returns:
            Whether all was forgotten: numbers given out before mean nothing any more.
        """
        for size, _ in self._reserved.values():
            self.used -= size
        self._reserved.clear()
        if len(self._numbers) < _KEYS:
            return False
        self._numbers.clear()
        self._entries.clear()
        self._heap.clear()
        self.used = 0
        return True

    def number(self, key: Hashable) -> int:
        """The number of a key, which tells a result apart from all others; equal keys have the same."""
        return self._numbers.setdefault(key, len(self._numbers))

    def holds(self, key: int) -> bool:
        """Whether the results of a key are there."""
        return key in self._entries

    def values(self, key: int) -> list[Tensor]:
        """The results of a key, by batch; it was asked for now."""
        entry = self._entries[key]
        self._rank(key, entry)
        return entry.values

    def reserve(self, key: int, size: int, seconds: float, in_use: Collection[int]) -> bool:
        """Make room for results that are about to be computed, if they are worth it.

        Args:
            key: Theirs.
            size: Bytes, all batches together.
            seconds: What holding them is expected to save.
            in_use: Keys that must stay.
        """
        if key in self._reserved or size > self.budget or seconds * _BYTES_A_SECOND < size:
            return False
        while self.used + size > self.budget:
            if not self._drop_the_least(self._clock + seconds / max(size, 1), in_use):
                least = self._heap[0][0] if self._heap else self._clock
                self._clock += max(0.0, least - self._clock) / _KNOCKS  # who is turned away often, gets in
                return False
        self._reserved[key] = (size, seconds)
        self.used += size
        return True

    def drop(self, key: int) -> None:
        """Let go of the results of a key, if they are there."""
        entry = self._entries.pop(key, None)
        self.used -= 0 if entry is None else entry.size

    def add(self, key: int, values: list[Tensor]) -> None:
        """The results that room was reserved for."""
        size, seconds = self._reserved.pop(key)
        actual = sum(memory_of(value) for value in values)
        entry = self._entries[key] = _Entry(values, actual, seconds / max(actual, 1))
        self._rank(key, entry)
        self.used += actual - size
        if self.used > self.budget:
            self.drop(key)

    def _rank(self, key: int, entry: _Entry) -> None:
        """It is worth most now; what the heap has of it from before no longer counts."""
        entry.priority = self._clock + entry.worth
        heapq.heappush(self._heap, (entry.priority, key))
        if len(self._heap) > 64 + 8 * len(self._entries):
            self._heap = [(entry.priority, key) for key, entry in self._entries.items()]
            heapq.heapify(self._heap)

    def _drop_the_least(self, below: float, in_use: Collection[int]) -> bool:
        """Drop what is worth least, unless all that may go is worth as much as `below`."""
        spared = []
        found = False
        while self._heap and not found and self._heap[0][0] < below:
            priority, key = heapq.heappop(self._heap)
            entry = self._entries.get(key)
            if entry is None or entry.priority != priority:
                continue
            if key in in_use:
                spared.append((priority, key))
                continue
            self._clock = max(self._clock, priority)
            self.drop(key)
            found = True
        for item in spared:
            heapq.heappush(self._heap, item)
        return found


class Sightings:
    """How often, and how soon, the results of one operation are asked for again, from what was seen lately."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}  # when last, those asked for lately last
        self._now = 0
        self._asked = self._different = 0.0
        self._longest = 0

    def see(self, key: int) -> None:
        """Note that a key is asked for."""
        self._now += 1
        self._asked += 1
        last = self._seen.pop(key, None)
        self._seen[key] = self._now
        if last is None:
            self._different += 1
        else:
            self._longest = max(self._longest, self._now - last)
        if self._different > _HALF_LIFE:
            self._asked, self._different = self._asked / 2, self._different / 2

    @property
    def uses(self) -> float:
        """How often a key was asked for once more, on average."""
        return self._asked / max(self._different, 1) - 1

    def past(self) -> Iterator[int]:
        """The keys not asked for more than twice as long as any that came again; forgotten by this."""
        patience = 2 * self._longest + _PATIENCE
        while self._seen:
            key = next(iter(self._seen))
            if self._now - self._seen[key] <= patience and len(self._seen) <= _REMEMBERED:
                return
            del self._seen[key]
            yield key

    def forget(self) -> None:
        """Keys mean nothing any more; how often they come again still does."""
        self._seen.clear()


def memory_of(tensor: Tensor) -> int:
    """Bytes that holding a tensor holds: those of the whole it is a part of."""
    return tensor.untyped_storage().nbytes()
