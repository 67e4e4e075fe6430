"""A tree of the combinations that are possible: flat where they are a full product, nested where not."""

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from itertools import combinations

from paretobit.spaces.knobs import Knob, Option, Tree, Value

Row = tuple[int, ...]
"""A combination: for every name, the position of its value."""


def nested_tree(
    names: Sequence[str],
    values: Sequence[Sequence[Value]],
    rows: Sequence[Row],
    more: Callable[[Row], tuple[Knob, ...]] = lambda row: (),
) -> Tree:
    """The tree whose configurations are these combinations, each once.

    Names whose values do not restrict each other are knobs side by side. Where they do, an option of
    the first owns the others, with the values that are left. Further knobs that every combination has
    stand side by side as well; the others hang under the knobs that decide about them.

    Args:
        names: Of the knobs.
        values: Of each, in order.
        rows: The possible combinations, at least one.
        more: Further knobs of a combination.
    """
    own = {row: more(row) for row in rows}
    kinds = list({id(knobs): knobs for knobs in own.values()}.values())
    common = tuple(knob for knob in kinds[0] if all(knob in knobs for knobs in kinds[1:]))
    hung = {id(knobs): tuple(knob for knob in knobs if knob not in common) for knobs in kinds}
    leaves = {row: hung[id(knobs)] for row, knobs in own.items()}
    nest = _Nest(names, values, leaves)
    return Tree((*nest.knobs(tuple(range(len(names))), rows, deciding(len(names), leaves)), *common))


def deciding(columns: int, found: Mapping[Row, Hashable]) -> frozenset[int]:
    """The fewest columns that decide what was found for a row; none where it is the same for all."""
    for number in range(columns):
        for chosen in combinations(range(columns), number):
            known: dict[Row, Hashable] = {}
            if all(known.setdefault(tuple(row[c] for c in chosen), own) == own for row, own in found.items()):
                return frozenset(chosen)
    return frozenset(range(columns))


class _Nest:
    def __init__(
        self, names: Sequence[str], values: Sequence[Sequence[Value]], leaves: dict[Row, tuple[Knob, ...]]
    ) -> None:
        self._names, self._values, self._leaves = names, values, leaves

    def knobs(self, columns: tuple[int, ...], rows: Sequence[Row], deciding: frozenset[int]) -> tuple[Knob, ...]:
        """The knobs of some columns over the rows that are left; `deciding`: what is not yet chosen."""
        return tuple(self._knob(b, rows, deciding & set(b)) for b in _blocks(columns, rows, deciding))

    def _knob(self, block: tuple[int, ...], rows: Sequence[Row], deciding: frozenset[int]) -> Knob:
        """The first column of a block; its options own the others, and what hangs below.

        One whose values are not all numbers goes first: samplers want such a knob to have the same
        options wherever it stands.
        """
        ordered = [Knob.of(self._names[c], list(self._values[c])).ordered for c in range(len(self._names))]
        head = min(block, key=lambda c: (ordered[c], c not in deciding, c))
        rest, left = tuple(c for c in block if c != head), deciding - {head}
        options = []
        for at in sorted({row[head] for row in rows}):
            here = [row for row in rows if row[head] == at]
            own = self.knobs(rest, here, left)
            if deciding and not left:
                own += self._leaves[here[0]]
            options.append(Option(self._values[head][at], own))
        return Knob(self._names[head], tuple(options))


def _blocks(columns: tuple[int, ...], rows: Sequence[Row], together: Collection[int]) -> list[tuple[int, ...]]:
    """The columns in groups that do not restrict each other; some stay together whatever the rows say."""
    group = {c: {c} for c in columns}

    def join(a: int, b: int) -> None:
        group[a] |= group[b]
        for c in group[b]:
            group[c] = group[a]

    def seen(some: Sequence[int]) -> int:
        return len({tuple(row[c] for c in some) for row in rows})

    for a, b in combinations(columns, 2):
        if group[a] is group[b]:
            continue
        if (a in together and b in together) or seen((a, b)) != seen((a,)) * seen((b,)):
            join(a, b)
    blocks = [tuple(sorted(own)) for own in {id(own): own for own in group.values()}.values()]
    if math.prod(map(seen, blocks)) != seen(columns):  # pairs do not, but more of them do
        return [columns]
    return blocks
