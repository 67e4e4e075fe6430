"""What a number format is: a frozen description, and a pure function on tensors."""

from __future__ import annotations

import abc
import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from paretobit.document import parse_value
from paretobit.errors import BadInput
from paretobit.formats.checks import check_choice
from paretobit.formats.grid import Grid
from paretobit.registry import Registry

Scale = Literal["none", "fixed", "max", "mean", "search"]
Gradient = Literal["pass", "mask"]
ENUMERABLE_WIDTH = 12
_USUAL = ("gradient", "pass")  # left out of what is printed


@dataclass(frozen=True)
class Traits:
    """What a format declares about itself; the conformance suite tests exactly this.

    Attributes:
        has_zero: Zero is representable and stays zero.
        symmetric: `quantize(-x) == -quantize(x)`, saturation included.
        deterministic: The same input always gives the same output.
        nearest: Given its scale, the value chosen is the nearest one, ties to the even code.
        idempotent: What was quantised once is not changed by quantising it again.
        scale: Where the scale comes from: `none` and `fixed` do not look at the data.
        monotone: Order is kept among elements that share a scale, where deterministic.
    """

    has_zero: bool
    symmetric: bool
    deterministic: bool = True
    nearest: bool = True
    idempotent: bool = True
    scale: Scale = "none"
    monotone: bool = True


@dataclass(frozen=True)
class Description:
    """The values of a format in numbers; a quantity that has no bound is None.

    A format whose scale follows the data is described over all scales it can take.

    Attributes:
        minimum: Smallest value.
        maximum: Largest value.
        smallest_positive: Smallest value above zero; None where there is none.
        step: Smallest distance between neighbouring values.
        codes: Number of different values of one element, under one scale.
    """

    minimum: float
    maximum: float
    smallest_positive: float | None
    step: float | None
    codes: int | None


@dataclass(frozen=True)
class Format(abc.ABC):
    """A number format. Subclasses are frozen dataclasses whose fields are the format's parameters.

    Attributes:
        name: Name in the registry and in configurations.
        formula: The values it can take, in one line.
        source: Paper or standard that defines it.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    source: ClassVar[str]
    is_no_state: ClassVar[bool] = True  # of a model that carries it

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        setattr(cls, "__repr__", Format.__repr__)  # noqa: B010 - or each dataclass would get its own

    @property
    @abc.abstractmethod
    def traits(self) -> Traits:
        """What the format promises."""

    @property
    @abc.abstractmethod
    def element_bits(self) -> int:
        """Bits of one element, shared parts not counted: the width that BitOPs use."""

    @abc.abstractmethod
    def describe(self) -> Description:
        """Range, steps and number of codes."""

    @abc.abstractmethod
    def quantize(self, x: Tensor) -> Tensor:
        """The values this format stores for `x`, in its shape and dtype; `x` is never modified."""

    def quantize_latent(self, x: Tensor) -> Tensor:
        """What stands for the parameter `x` while it is trained: mostly the same."""
        return self.quantize(x)

    def bits(self, shape: Sequence[int]) -> int:
        """Bits that storing a tensor of this shape takes, shared exponents and scales included."""
        return self.element_bits * math.prod(shape)

    def codes(self) -> Tensor:
        """Every different value of an element, ascending, float64.

        Raises:
            BadInput: There is no finite list of values, one too long to enumerate, or one that
                depends on the data.
        """
        allowed = "element formats of up to 12 bits whose values float64 holds"
        raise BadInput(f"'{self}' cannot be enumerated", allowed=allowed)

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters by name, resolved; those that every format shares come last."""
        return {f.name: getattr(self, f.name) for f in parameters_of(type(self))}

    def to_dict(self) -> dict[str, Any]:
        """Name and parameters, as `make` takes them."""
        return {"name": self.name, **self.parameters}

    @property
    def chosen(self) -> dict[str, Any]:
        """The parameters that differ from their defaults."""
        defaults = {f.name: f.default for f in parameters_of(type(self))}
        return {name: value for name, value in self.parameters.items() if value != defaults[name]}

    def __repr__(self) -> str:
        shown = (f"{key}={value!r}" for key, value in self.parameters.items() if (key, value) != _USUAL)
        return f"{type(self).__name__}({', '.join(shown)})"

    def __str__(self) -> str:
        if not self.chosen:
            return self.name
        return f"{self.name}({', '.join(f'{key}={_plain(value)}' for key, value in self.chosen.items())})"


@dataclass(frozen=True)
class LossyFormat(Format):
    """A format that rounds: what all but full precision share.

    Args:
        gradient: The straight-through gradient (Bengio et al. 2013) is that of the identity; `mask`
            makes it zero where the value saturates (Hubara et al. 2016).
    """

    gradient: Gradient = field(default="pass", kw_only=True)

    def __post_init__(self) -> None:
        check_choice("gradient", self.gradient, Gradient)

    @abc.abstractmethod
    def _round(self, x: Tensor) -> Tensor:
        """`quantize` for a tensor of float32 or float64 that has elements: always a new tensor."""

    def _inside(self, x: Tensor) -> Tensor:
        """Where `x` (float32 or float64) does not saturate, as booleans."""
        description = self.describe()
        return (x >= description.minimum) & (x <= description.maximum)

    def quantize(self, x: Tensor) -> Tensor:
        """The values this format stores for `x`, in its shape and dtype.

        Infinity saturates, NaN stays NaN. float16 and bfloat16 are computed in float32 and rounded
        back. The gradient is straight-through. `x` is never modified.

        Raises:
            TypeError: `x` is not a floating-point tensor.
        """
        if not x.is_floating_point():
            raise TypeError(f"a number format quantizes floating-point tensors, not {x.dtype}")
        if x.requires_grad and torch.is_grad_enabled():
            return _straight_through(x, self)
        if x.numel() == 0:
            return x.clone()
        exact = computed(x)
        if exact is x:
            return self._round(x)
        limit = torch.finfo(x.dtype).max  # a wide format reaches further
        return self._round(exact).clamp_(-limit, limit).to(x.dtype)


def computed(x: Tensor) -> Tensor:
    """`x` in the type in which formats compute: itself, or float32 for a half type."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


@dataclass(frozen=True)
class WidthFormat(LossyFormat):
    """A format that is told the bits of an element.

    Args:
        width: Bits of an element.
    """

    width: int

    @property
    def element_bits(self) -> int:
        return self.width


@dataclass(frozen=True)
class GridFormat(LossyFormat):
    """A format whose values are those of a grid, whatever codes it has for them."""

    grid: Grid = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "grid", self._make_grid())

    @abc.abstractmethod
    def _make_grid(self) -> Grid:
        """The values, from the parameters."""

    def describe(self) -> Description:
        """Range, the step around zero, and the number of different values."""
        grid = self.grid
        smallest = grid.smallest if grid.maximum > 0 else None
        return Description(grid.minimum, grid.maximum, smallest, grid.smallest, grid.count())

    def codes(self) -> Tensor:
        """Every value, ascending, zero once, float64; up to 12 bits, where float64 holds them all."""
        if self.element_bits > ENUMERABLE_WIDTH:
            return super().codes()
        values = list(self.grid.values())
        return torch.tensor(values, dtype=torch.float64) if len(values) == self.describe().codes else super().codes()


FORMATS: Registry[type[Format]] = Registry("number format")


@FORMATS.register("float")
@dataclass(frozen=True)
class FullPrecision(Format):
    """Full precision: the tensor as it is, 32 bits an element."""

    name: ClassVar[str] = "float"
    formula: ClassVar[str] = "x"
    source: ClassVar[str] = "IEEE 754"
    _only: ClassVar[FullPrecision | None] = None

    def __new__(cls) -> FullPrecision:
        """The one instance: `is FULL` also holds for what was copied or unpickled."""
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    @property
    def traits(self) -> Traits:
        return Traits(has_zero=True, symmetric=True)

    @property
    def element_bits(self) -> int:
        return 32

    def describe(self) -> Description:
        limits = torch.finfo(torch.float32)
        return Description(limits.min, limits.max, 2.0**-149, None, None)

    def quantize(self, x: Tensor) -> Tensor:
        """`x` itself, not a copy."""
        return x


FULL = FullPrecision()


def make(name: str, **parameters: Any) -> Format:
    """The format called `name` with these parameters.

    Raises:
        BadInput: Unknown name or parameter, a parameter missing or out of range.

    >>> make("integer", width=8, frac_width=4)
    Integer(width=8, frac_width=4, signed=True, rounding='nearest')
    """
    family = FORMATS[name]
    fields = {f.name: f for f in parameters_of(family)}
    for key in parameters:
        if key not in fields:
            raise BadInput(f"unknown parameter of format '{name}'", found=key, allowed=list(fields))
    for key, parameter in fields.items():
        if parameter.default is dataclasses.MISSING and key not in parameters:
            raise BadInput(f"format '{name}' needs the parameter '{key}'", found=sorted(parameters))
    return family(**parameters)


def parameters_of(family: type[Format]) -> list[dataclasses.Field[Any]]:
    """Fields of a family; those that every format shares come last."""
    chosen = (f for f in dataclasses.fields(family) if f.init)
    return sorted(chosen, key=lambda f: f.kw_only is True)


def parse(text: str) -> Format:
    """The format that `str(format)` wrote.

    >>> parse("integer(width=8, frac_width=4)").element_bits
    8
    >>> parse("float") is FULL
    True
    """
    name, _, rest = str(text).strip().partition("(")
    if rest and not rest.endswith(")"):
        raise BadInput("not a number format", found=text, allowed="name(parameter=value, ...)")
    parameters = {}
    for item in filter(None, (part.strip() for part in re.split(r",(?![^\[]*\])", rest[:-1]))):
        key, equals, value = item.partition("=")
        if not equals:
            raise BadInput("not a number format", found=text, allowed="name(parameter=value, ...)")
        parameters[key.strip()] = parse_value(value.strip())
    return make(name.strip(), **parameters)


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return str(list(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, number_format: LossyFormat) -> Tensor:
        if number_format.gradient == "mask":
            ctx.save_for_backward(number_format._inside(computed(x)))
        return number_format.quantize(x)  # gradients are off in here

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return (gradient.where(ctx.saved_tensors[0], 0) if ctx.saved_tensors else gradient), None


def _straight_through(x: Tensor, number_format: LossyFormat) -> Tensor:
    result: Tensor = _StraightThrough.apply(x, number_format)  # type: ignore[no-untyped-call]
    return result
