"""What a number format is: a frozen description, and a pure function on tensors."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from paretobit.document import parse_value
from paretobit.errors import BadInput
from paretobit.registry import Registry


@dataclass(frozen=True)
class Traits:
    """What a format declares about itself; the conformance suite tests exactly this.

    Attributes:
        has_zero: Zero is representable and stays zero.
        symmetric: `quantize(-x) == -quantize(x)` away from saturation.
        deterministic: The same input always gives the same output.
        scale: Where the scale comes from: `none` and `fixed` do not look at the data.
    """

    has_zero: bool
    symmetric: bool
    deterministic: bool = True
    scale: Literal["none", "fixed", "max", "mean", "search"] = "none"


@dataclass(frozen=True)
class Description:
    """The grid of an element format in numbers; a quantity that has no bound is None."""

    minimum: float
    maximum: float
    smallest_positive: float
    step: float | None
    codes: int | None


@dataclass(frozen=True)
class Format(abc.ABC):
    """A number format. Subclasses are frozen dataclasses whose fields are the format's parameters."""

    name: ClassVar[str]

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
    def _round(self, x: Tensor) -> Tensor:
        """`quantize` for float32 or float64, without a gradient; must not modify `x`."""

    def quantize(self, x: Tensor) -> Tensor:
        """The nearest values this format can represent, in the shape and dtype of `x`.

        float16 and bfloat16 are computed in float32 and rounded back. The gradient is
        straight-through (Bengio et al. 2013): that of the identity. `x` is never modified.

        Raises:
            TypeError: `x` is not a floating-point tensor.
        """
        if not x.is_floating_point():
            raise TypeError(f"a number format quantizes floating-point tensors, not {x.dtype}")
        if x.requires_grad and torch.is_grad_enabled():
            return _straight_through(x, self)
        if x.dtype in (torch.float32, torch.float64):
            return self._round(x)
        return self._round(x.float()).to(x.dtype)

    def bits(self, shape: Sequence[int]) -> int:
        """Bits that storing a tensor of this shape takes."""
        return self.element_bits * math.prod(shape)

    def codes(self) -> Tensor:
        """Every representable value, ascending, float64.

        Raises:
            BadInput: The format has no finite list of codes, or one too long to enumerate.
        """
        raise BadInput(f"'{self}' cannot be enumerated", allowed="element formats of up to 12 bits")

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters by name, resolved."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def to_dict(self) -> dict[str, Any]:
        """Name and parameters, as `make` takes them."""
        return {"name": self.name, **self.parameters}

    @property
    def chosen(self) -> dict[str, Any]:
        """The parameters that differ from their defaults."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return {name: value for name, value in self.parameters.items() if value != defaults[name]}

    def __str__(self) -> str:
        if not self.chosen:
            return self.name
        return f"{self.name}({', '.join(f'{key}={_plain(value)}' for key, value in self.chosen.items())})"


FORMATS: Registry[type[Format]] = Registry("number format")


@FORMATS.register("float")
@dataclass(frozen=True)
class FullPrecision(Format):
    """Full precision: the tensor as it is, 32 bits an element."""

    name: ClassVar[str] = "float"
    _only: ClassVar[FullPrecision | None] = None

    def __new__(cls) -> FullPrecision:
        """The one instance: `is FULL` also holds for what was copied or unpickled."""
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    @property
    def traits(self) -> Traits:
        """Everything representable stays what it is."""
        return Traits(has_zero=True, symmetric=True)

    @property
    def element_bits(self) -> int:
        """32."""
        return 32

    def describe(self) -> Description:
        """The range of float32."""
        limits = torch.finfo(torch.float32)
        return Description(limits.min, limits.max, 2.0**-149, None, None)

    def quantize(self, x: Tensor) -> Tensor:
        """`x` itself, not a copy."""
        return x

    def _round(self, x: Tensor) -> Tensor:
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
    fields = {field.name: field for field in dataclasses.fields(family)}
    for key in parameters:
        if key not in fields:
            raise BadInput(f"unknown parameter of format '{name}'", found=key, allowed=list(fields))
    for key, field in fields.items():
        if field.default is dataclasses.MISSING and key not in parameters:
            raise BadInput(f"format '{name}' needs the parameter '{key}'", found=sorted(parameters))
    return family(**parameters)


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
    for item in filter(None, (part.strip() for part in rest[:-1].split(","))):
        key, equals, value = item.partition("=")
        if not equals:
            raise BadInput("not a number format", found=text, allowed="name(parameter=value, ...)")
        parameters[key.strip()] = parse_value(value.strip())
    return make(name.strip(), **parameters)


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, number_format: Format) -> Tensor:
        return number_format.quantize(x)  # gradients are off in here

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def _straight_through(x: Tensor, number_format: Format) -> Tensor:
    result: Tensor = _StraightThrough.apply(x, number_format)  # type: ignore[no-untyped-call]
    return result
