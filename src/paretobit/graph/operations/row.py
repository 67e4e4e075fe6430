"""What is known of one operation, and the registry of all that are known."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from torch import nn

from paretobit.errors import BadInput
from paretobit.registry import Registry

Kind = Literal[
    "view", "copy", "make", "question", "comparison", "elementwise", "norm", "softmax", "reduction", "product"
]
"""What an operation does with its data.

`view`: the result shares the memory of the first argument. `copy`: the values are those of the arguments, in
memory of their own. `make`: the values come from nowhere (constants, random numbers). `question`: no tensors
result. `comparison`: the result says something of the data and is none itself (booleans, places).
`elementwise`, `norm`, `softmax`, `reduction`: what their cost is called. `product`: it multiplies and adds up.
"""
Rule = str | Callable[..., Any]
"""A word that the room which asks knows, or a function in its place."""


@dataclass(frozen=True)
class Operand:
    """An operand that goes through a slot: its position, and the names it can be given by.

    Attributes:
        slot: `data_in`, `weight` or `bias`.
        position: Among the positional arguments.
        names: By which it can be given.
        terms: Of a product: its axes along which the terms of a sum lie; the outputs, for which a format has
            scales of their own, lie along the others. None: the outputs lie first, as in a layer's weight.
        groups: Of the weight of a transposed convolution, `(in, out / groups, ...)`: its groups.
    """

    slot: str
    position: int
    names: tuple[str, ...]
    terms: tuple[int, ...] | None = None
    groups: int | None = None

    def find(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What a call gives for it; None where it gives nothing."""
        if self.position < len(args):
            return args[self.position]
        return next((kwargs[name] for name in self.names if name in kwargs), None)


@dataclass(frozen=True)
class Switch:
    """An argument on which a side effect depends: it happens where the argument is true.

    Attributes:
        position: Of the argument.
        names: Of the argument.
        default: What it is where it is not given.
        changed: Position and name of the argument that the effect is on: without it there is none.
    """

    position: int
    names: tuple[str, ...]
    default: bool = False
    changed: tuple[int, str] | None = None

    def is_on(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call has the effect; what is not known to be off counts as on."""
        if self.changed is not None:
            place, name = self.changed
            if (args[place] if place < len(args) else kwargs.get(name)) is None:
                return False
        if self.position < len(args):
            return bool(args[self.position])
        return bool(next((kwargs[name] for name in self.names if name in kwargs), self.default))


@dataclass(frozen=True)
class Operation:
    """One row of the table of operations.

    An operation is quantised through its `operands`. Adding one is one row:

    >>> from paretobit.graph.operations import OF_DATA, OPERATIONS, Operation
    >>> row = Operation("elementwise", OF_DATA, aliases=("special_bessel_j0",))
    >>> OPERATIONS.register("bessel", summary="Bessel function of the first kind")(row) is row
    True
    >>> OPERATIONS.word("special_bessel_j0"), OPERATIONS["bessel"].slots
    ('bessel', ('data_in',))
    >>> OPERATIONS.remove("bessel")  # this is but an example

    A layer type of one's own has a row with its `layer`, and where it owns weights a class of
    `paretobit.nn.Quantized` registered in `paretobit.nn.LAYERS` under the same word.

    Attributes:
        kind: What it does with its data.
        operands: What of a call goes through a format; none where the function cannot be quantised.
        arrange: For a function whose arguments tell: `(args, kwargs) -> operands` of one call.
        either_way: Whether its first operand may be the weight as well: it is where it shows a parameter,
            and the second does not.
        aliases: Other names of the same function: torch's, Python's, reflected.
        cost: How its operations are counted: a word of `paretobit.passes.analysis.cost`, or
            `(node, module, operands) -> products`; by its kind unless told, `unknown` where nobody knows.
        widths: What it does to widths: a word of `paretobit.graph.widths`, or
            `(walk, node, args, kwargs) -> axes`; None where that is not understood.
        order: Of a view: `other` where memory is out of order after it, `restores` where it copies
            what is out of order.
        casts: Of a copy: whether it is all of the first argument, in its shape, in another type or memory.
        random: Whether it draws random numbers, or what this depends on. What reads memory that
            nobody wrote (`empty`) is random as well.
        writes: On what it depends that it changes an argument besides giving its result; True where
            it always does.
        layer: The layer type that performs it, where this is none of torch's.
    """

    kind: Kind
    operands: tuple[Operand, ...] = ()
    arrange: Callable[[Sequence[Any], Mapping[str, Any]], tuple[Operand, ...]] | None = None
    either_way: bool = False
    aliases: tuple[str, ...] = ()
    cost: Rule = ""
    widths: Rule | None = ""
    order: Literal["same", "other", "restores"] = "same"
    casts: bool = False
    random: bool | Switch = False
    writes: bool | Switch = False
    layer: type[nn.Module] | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise BadInput("unknown kind of operation", key="kind", found=self.kind, allowed=get_args(Kind))
        object.__setattr__(self, "cost", self.cost or self.kind)
        if self.widths == "":
            like_itself = ("elementwise", "comparison", "softmax")
            word = self.kind if self.kind == "softmax" else "elementwise"
            object.__setattr__(self, "widths", word if self.kind in like_itself else None)

    @property
    def slots(self) -> tuple[str, ...]:
        """Slots of its operands, in the order in which slots are listed."""
        used = {operand.slot for operand in self.operands}
        return tuple(slot for slot in SLOT_ORDER if slot in used)

    def given(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], stored: Callable[[Any], bool]
    ) -> tuple[Operand, ...]:
        """What of one call goes through a format.

        Args:
            args: Positional arguments.
            kwargs: Named arguments.
            stored: Whether an argument is a parameter, or shows one.
        """
        operands = self.operands if self.arrange is None else self.arrange(args, kwargs)
        if not self.either_way:
            return operands
        two_sided = [o for o in operands if o.slot != "bias"]
        parameters = {o for o in two_sided if stored(o.find(args, kwargs))}
        if not parameters or two_sided[0] not in parameters or parameters.issuperset(two_sided):
            return operands
        slots = {o: "weight" if o in parameters else "data_in" for o in two_sided}
        return tuple(replace(o, slot=slots.get(o, o.slot)) for o in operands)

    @property
    def is_view(self) -> bool:
        """Whether its result shares the memory of its first argument."""
        return self.kind == "view"

    @property
    def is_product(self) -> bool:
        """Whether it multiplies and adds up."""
        return self.kind == "product"

    @property
    def moves_only(self) -> bool:
        """Whether it computes nothing."""
        return self.kind in ("view", "copy", "make", "question")

    @property
    def passes_on(self) -> bool:
        """Whether the values of its result are those of its arguments, read through no format."""
        return self.kind in ("view", "copy") and not self.operands

    @property
    def looks_up(self) -> bool:
        """Whether it takes what it is asked for out of a table of weights."""
        return self.slots == ("weight",)

    @property
    def nothing_to_quantize(self) -> bool:
        """Whether there is nothing that a format could change."""
        return (self.moves_only or self.kind == "comparison") and not self.operands

    def is_pure(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call draws nothing, and changes nothing but through its result."""
        if "out" in kwargs:
            return False
        effects = (self.random, self.writes)
        return not any(e.is_on(args, kwargs) if isinstance(e, Switch) else e for e in effects)


SLOT_ORDER = ("data_in", "weight", "bias")


class Operations(Registry[Operation]):
    """The table of operations: rows by word, found by any of their names."""

    def __init__(self) -> None:
        super().__init__("operation")
        self._words: dict[str, str] = {}
        self._types: dict[type[nn.Module], str] = {}

    def register(self, name: str, *, summary: str = "") -> Callable[[Operation], Operation]:
        """Files a row under its word and all its names.

        Raises:
            BadInput: One of the names is taken.
        """
        file = super().register(name, summary=summary)

        def take(row: Operation) -> Operation:
            for alias in (name, *row.aliases):
                if alias in self._words:
                    taken = self._words[alias]
                    raise BadInput(f"the operation '{taken}' has this name already", found=alias)
            file(row)
            self._words |= dict.fromkeys((name, *row.aliases), name)
            if row.layer is not None:
                self._types[row.layer] = name
            return row

        return take

    def remove(self, name: str) -> None:
        """Take a row out again."""
        row = self[name]
        del self._entries[name]
        self._words = {alias: word for alias, word in self._words.items() if word != name}
        self._types = {layer: word for layer, word in self._types.items() if layer is not row.layer}

    def word(self, name: str) -> str:
        """The one word for a function that torch and Python know by several names, in place or not.

        >>> from paretobit.graph.operations import OPERATIONS
        >>> [OPERATIONS.word(name) for name in ("iadd", "add_", "__rsub__", "truediv", "swapdims", "mine")]
        ['add', 'add', 'sub', 'div', 'transpose', 'mine']
        """
        bare = name.strip("_")
        return self._words.get(name) or self._words.get(bare, bare)

    def find(self, name: str) -> Operation | None:
        """The row of a name; None where the operation is not known."""
        entry = self._entries.get(self.word(name))
        return None if entry is None else entry.value

    def word_of_layer(self, module: nn.Module) -> str | None:
        """The word of a layer of a registered type; None for layers of torch's."""
        return next((self._types[base] for base in type(module).__mro__ if base in self._types), None)

    def operands(self, name: str) -> tuple[Operand, ...]:
        """What of a function's call goes through a format; nothing where it cannot be quantised."""
        entry = self._entries.get(name)
        return () if entry is None else entry.value.operands


OPERATIONS = Operations()
"""Every operation that is known."""


def row_of(name: str) -> Operation:
    """The row of an operation, or what is assumed where there is none: that nothing is known."""
    return OPERATIONS.find(name) or UNKNOWN


UNKNOWN = Operation("elementwise", cost="unknown", widths=None, random=True)
"""In the place of a row that is not there."""
