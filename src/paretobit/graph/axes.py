"""Tensor axes made of width variables: what an axis consists of, and which variables must be equal.

An axis is a list of segments. A segment is a width variable, each of its channels `repeat` times in a
row, or a fixed number of elements. Joining two axes makes their segments equal: variables are merged
(union-find), and a variable that meets several segments, or a channel that stands for several
elements, is replaced by parts of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_FIXED = "a fixed size"


@dataclass(frozen=True)
class Segment:
    """A run of elements of an axis.

    Attributes:
        variable: Number of the width variable; None where the elements are fixed.
        count: Channels of the variable now, or fixed elements.
        repeat: Elements in a row that belong to one channel.
        reason: Why fixed elements are fixed.
    """

    variable: int | None
    count: int
    repeat: int = 1
    reason: str = field(default=_FIXED, compare=False)

    @property
    def size(self) -> int:
        """Elements it holds."""
        return self.count * self.repeat


Axis = tuple[Segment, ...]


def fixed(elements: int, reason: str = _FIXED) -> Axis:
    """An axis that never changes."""
    return (Segment(None, elements, reason=reason),)


def size(axis: Iterable[Segment]) -> int:
    """Elements of an axis now."""
    return sum(segment.size for segment in axis)


def repeated(axis: Axis, times: int) -> Axis:
    """Every element `times` times in a row."""
    return tuple(
        Segment(None, s.count * times, reason=s.reason)
        if s.variable is None
        else Segment(s.variable, s.count, s.repeat * times)
        for s in axis
    )


class Variables:
    """The width variables of a model: equal ones merged, some made of parts, some frozen."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._count: list[int] = []
        self._parts: dict[int, Axis] = {}
        self._reasons: dict[int, str] = {}

    def new(self, count: int, frozen: str | None = None) -> Axis:
        """An axis that is one new variable."""
        self._parent.append(len(self._parent))
        self._count.append(count)
        if frozen is not None:
            self._reasons[len(self._parent) - 1] = frozen
        return (Segment(len(self._parent) - 1, count),)

    def root(self, variable: int) -> int:
        """The variable that stands for all that are merged with this one."""
        while self._parent[variable] != variable:
            self._parent[variable] = self._parent[self._parent[variable]]
            variable = self._parent[variable]
        return variable

    def reason(self, variable: int) -> str | None:
        """Why a variable is frozen; None where it is free."""
        return self._reasons.get(self.root(variable))

    def resolve(self, axis: Iterable[Segment]) -> Axis:
        """The axis in terms of variables that have no parts."""
        result: list[Segment] = []
        for segment in axis:
            if segment.variable is None:
                result.append(segment)
                continue
            root = self.root(segment.variable)
            if root in self._parts:
                result += self.resolve(repeated(self._parts[root], segment.repeat))
            else:
                result.append(Segment(root, segment.count, segment.repeat))
        return tuple(result)

    def is_fixed(self, axis: Axis) -> bool:
        """Whether no segment may change."""
        return all(self._reason_of(segment) is not None for segment in self.resolve(axis))

    def why_fixed(self, axis: Axis) -> str:
        """The first reason among the segments that may not change; empty where all may."""
        reasons = (self._reason_of(segment) for segment in self.resolve(axis))
        return next((reason for reason in reasons if reason is not None), "")

    def freeze(self, axis: Axis, reason: str) -> None:
        """Fix all variables of an axis; a reason given earlier stays."""
        for segment in self.resolve(axis):
            if segment.variable is not None:
                self._reasons.setdefault(segment.variable, reason)

    def join(self, first: Axis, second: Axis, where: str) -> None:
        """Make two axes equal, segment by segment.

        Args:
            first: An axis.
            second: Another of the same size.
            where: The operation that asks for it, for the reasons of what gets frozen.
        """
        a, b = self.resolve(first), self.resolve(second)
        while a and b:
            if a[0] == b[0]:
                a, b = a[1:], b[1:]
                continue
            length = self._common(a[0], b[0])
            taken_a, taken_b = self._take(a, length), self._take(b, length)
            if not length or taken_a is None or taken_b is None:
                break
            (head_a, a), (head_b, b) = taken_a, taken_b
            self._match(self.resolve(head_a), self.resolve(head_b), where)
            a, b = self.resolve(a), self.resolve(b)
        if a or b:
            for axis in (a, b):
                self.freeze(axis, f"{where} joins channels that do not line up")

    def cut(self, axis: Axis, sizes: Sequence[int]) -> list[Axis] | None:
        """Pieces of these sizes; None where a boundary falls within a channel."""
        pieces, rest = [], self.resolve(axis)
        for length in sizes:
            taken = self._take(rest, length)
            if taken is None:
                return None
            piece, rest = taken
            pieces.append(piece)
        return [self.resolve(piece) for piece in pieces]

    def tiles(self, axis: Axis, number: int, where: str) -> Axis | None:
        """The tile, where the axis is made to be `number` equal tiles; None where it cannot be."""
        if number == 1:
            return self.resolve(axis)
        if size(axis) % number:
            return None
        pieces = self.cut(axis, [size(axis) // number] * number)
        if pieces is None:
            return None
        for piece in pieces[1:]:
            self.join(pieces[0], piece, where)
        return self.resolve(pieces[0])

    def over(self, axis: Axis, block: int) -> Axis | None:
        """The axis of blocks of `block` elements in a row; None where a block mixes channels for good."""
        result: list[Segment] = []
        for segment in self.resolve(axis):
            if segment.variable is None or self._reason_of(segment) is not None:
                if segment.size % block:
                    return None
                result += fixed(segment.size // block, self.why_fixed((segment,)))
            elif segment.repeat % block == 0:
                result.append(Segment(segment.variable, segment.count, segment.repeat // block))
            else:
                unit, remainder = divmod(block, segment.repeat)
                if remainder or segment.count % unit:
                    return None
                self._parts[segment.variable] = repeated(self.new(segment.count // unit), unit)
                result += [Segment(s.variable, s.count) for s in self._parts[segment.variable]]
        return tuple(result)

    def _reason_of(self, segment: Segment) -> str | None:
        return segment.reason if segment.variable is None else self.reason(segment.variable)

    def _common(self, a: Segment, b: Segment) -> int:
        """How many elements two different first segments can be matched over; 0 where they cannot."""
        shorter = min(a.size, b.size)
        if self._reason_of(a) is not None or self._reason_of(b) is not None:
            return shorter
        low, high = sorted((a.repeat, b.repeat))
        return 0 if high % low else shorter // high * high

    def _take(self, axis: Axis, length: int) -> tuple[Axis, Axis] | None:
        """The first `length` elements, and the rest."""
        head: list[Segment] = []
        rest = list(self.resolve(axis))
        while length:
            if not rest:
                return None
            segment = rest[0]
            if segment.size <= length:
                head.append(rest.pop(0))
                length -= segment.size
                continue
            if segment.variable is not None and length % segment.repeat == 0:
                self._split(segment.variable, length // segment.repeat)
                rest = list(self.resolve(rest))
                head = list(self.resolve(head))
                continue
            reason = self._reason_of(segment)
            if reason is None:
                return None
            head += fixed(length, reason)
            rest[0] = Segment(None, segment.size - length, reason=reason)
            length = 0
        return tuple(head), tuple(rest)

    def _split(self, variable: int, count: int) -> None:
        """Make a variable of two parts, the first of `count` channels."""
        reason = self.reason(variable)
        parts = (count, self._count[variable] - count)
        self._parts[variable] = (*self.new(parts[0], reason), *self.new(parts[1], reason))

    def _match(self, a: Axis, b: Axis, where: str) -> None:
        """Make two axes of one size equal, of which at least one is a single segment."""
        if self.why_fixed(a) or self.why_fixed(b) or len(a) != 1 or len(b) != 1:
            reason = self.why_fixed(a) or self.why_fixed(b) or f"{where} joins channels that do not line up"
            reason = f"{where} joins it with a fixed size" if reason == _FIXED else reason
            self.freeze(a, reason)
            self.freeze(b, reason)
            return
        (x,), (y,) = a, b
        if x.variable is None or y.variable is None or x == y:
            return
        if x.repeat == y.repeat:
            low, high = sorted((x.variable, y.variable))
            self._parent[high] = low
            return
        fine, coarse = (x, y) if x.repeat < y.repeat else (y, x)
        assert fine.variable is not None
        self._parts[fine.variable] = (Segment(coarse.variable, coarse.count, coarse.repeat // fine.repeat),)
