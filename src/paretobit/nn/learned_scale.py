"""Scales of scaled integers that are trained with the weights (LSQ: Esser et al. 2020, arXiv 1902.08153)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from paretobit.errors import BadInput, under
from paretobit.formats import Description, Format, ScaledInteger
from paretobit.formats.grid import limited_
from paretobit.formats.partition import join, parts, split
from paretobit.formats.wrapped import Wrapped
from paretobit.nn.quantized import Quantized, shares_slots

SUFFIX = "_scale"
_SMALLEST, _LARGEST = 2.0**-126, 2.0**104  # that a fixed scale may be


class Scales(NamedTuple):
    """Which slots have a trained scale: `path.slot` of those that do, and why the other ones do not."""

    learned: list[str]
    left: dict[str, str]


def learn_scales(model: nn.Module) -> Scales:
    """Put a trainable scale in place of that of every slot with a `scaled_integer` format, in place.

    The parameter is called `weight_scale` beside the slot `weight`. It starts at the format's scale
    where that is fixed, otherwise at `2 mean|x| / sqrt(qmax)`, of the weights that are not zero, or
    of the first batch that is trained on. Values take the straight-through gradient within the range
    of the codes and none outside; the scale takes `round(x / s) - x / s` within and the bound
    outside, times `1 / sqrt(N qmax)`, N the elements of one sample that share the scale (equations
    1 to 5 and section 2.2 of the paper). Zero points stay; a failure leaves the formats as they were.

    Raises:
        BadInput: No slot carries such a format, none can be learned, or scales are learned already.
    """
    found = Scales([], {})
    for layer, slot, name in list(_scaled(model)):
        reason = _reason(layer, slot)
        if reason is not None:
            found.left[name] = reason
            continue
        try:
            with under(name):
                _learn(layer, slot)
        except BadInput:
            forget_scales(model)
            raise
        found.learned.append(name)
    if not found.learned:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.left.items())
        raise BadInput(
            "no slot of the model has a scale to learn" + (f" ({reasons})" if reasons else ""),
            key="learned_scales",
            allowed="layers with scaled_integer formats: quantise first",
        )
    return found


def fix_scales(model: nn.Module) -> dict[str, str]:
    """Write the learned scales into the formats and take the parameters away; outputs stay bit for bit.

    Returns:
        The slots whose format stays as it was, `path.slot`, and why: no batch was trained on there.
    """
    idle = {}
    for layer, slot, learned, name in _learned(model):
        _replace(layer, slot, learned.fixed())
        if layer.slots[slot] is learned.inner:
            idle[name] = "no batch that was trained on went through it"
    return idle


def forget_scales(model: nn.Module) -> None:
    """Undo `learn_scales`: the formats are again what they were."""
    for layer, slot, learned, _ in _learned(model):
        _replace(layer, slot, learned.inner)


def is_scale(name: str, model: nn.Module) -> bool:
    """Whether a parameter of a model, by its full name, is a learned scale."""
    path, _, own = name.rpartition(".")
    slots = getattr(model.get_submodule(path), "slots", {})
    return isinstance(slots.get(own.removesuffix(SUFFIX)), LearnedScale) and own.endswith(SUFFIX)


@dataclass(frozen=True, eq=False)
class LearnedScale(Wrapped):
    """A scaled integer whose scale is a parameter while it is trained; in no registry.

    Args:
        inner: The format that it stands for.
        scale: The parameter, float32, one element a scale; zeros until the first batch is trained on.
            Only its magnitude counts.
        is_parameter: Whether it quantises a parameter, whose rows are no samples.
    """

    name: ClassVar[str] = ScaledInteger.name
    formula: ClassVar[str] = ScaledInteger.formula
    source: ClassVar[str] = "Esser et al. 2020 (LSQ), arXiv 1902.08153"
    inner: ScaledInteger
    scale: nn.Parameter
    is_parameter: bool
    _started: list[bool] = field(default_factory=lambda: [False])

    def describe(self) -> Description:
        """The format as it is now."""
        return self.fixed().describe()

    def fixed(self) -> ScaledInteger:
        """The format with the scale as it is now; as it was, where there is none yet."""
        if not self._has_started():
            return self.inner
        scales = _positive(self.scale.detach()).tolist()
        return replace(self.inner, scale=scales[0] if len(scales) == 1 else tuple(scales))

    def __str__(self) -> str:
        return str(self.fixed())

    def quantize(self, x: Tensor) -> Tensor:
        """As the format with the scale as it is now; with gradients on, for the scale too."""
        if not torch.is_grad_enabled():
            return self.fixed().quantize(x)
        if not self._has_started():
            self.start(x)
        if x.dtype in (torch.float32, torch.float64):
            return self._trained(x)
        limit = torch.finfo(x.dtype).max
        return self._trained(x.float()).clamp(-limit, limit).to(x.dtype)

    def start(self, x: Tensor) -> None:
        """Set the scale to what `x` needs."""
        self.scale.data = initial_scales(self.inner, x, skip_zeros=self.is_parameter)

    def _has_started(self) -> bool:
        if not self._started[0]:  # asked only until then: on an accelerator the answer is waited for
            self._started[0] = bool(self.scale.detach().count_nonzero())
        return self._started[0]

    def _trained(self, x: Tensor) -> Tensor:
        result: Tensor = _Learned.apply(x, self.scale, self)  # type: ignore[no-untyped-call]
        return result

    def laid_out(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """`x` by parts, and scale and zero point in shapes that broadcast over them."""
        blocked, inside = split(x, self.inner.extents(x.shape))
        shape = [1 if dim in inside else size for dim, size in enumerate(blocked.shape)]
        if self.scale.numel() not in (1, math.prod(shape)):
            raise BadInput(
                "the number of learned scales is not that of the parts that share one",
                key="scale",
                found=self.scale.numel(),
                allowed=f"1 or {math.prod(shape)}",
            )
        shape = shape if self.scale.numel() > 1 else [1] * len(shape)
        known = self.inner.zero_point
        point = None if known is None else torch.tensor(known, dtype=x.dtype, device=x.device).view(shape)
        return blocked, _positive(self.scale.detach()).to(x.dtype).view(shape), point

    def gradient_scale(self, shape: torch.Size) -> float:
        """`1 / sqrt(N qmax)`, N the elements that share a scale: of a parameter, or of one row of data."""
        rows = 1 if self.is_parameter or len(shape) < 2 else max(shape[0], 1)
        shared = math.prod(shape) / rows / self.scale.numel()
        return 1 / math.sqrt(max(shared, 1) * self.inner.code_range[1])


class _Learned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, learned: LearnedScale) -> Tensor:
        blocked, positive, point = learned.laid_out(x)
        low, high = learned.inner.code_range
        shifted = blocked / positive
        codes = shifted.round()
        if point is not None:
            shifted, codes = shifted.add_(point), codes.add_(point)
        ctx.learned, ctx.point = learned, point
        ctx.save_for_backward(shifted, scale, positive)
        codes = limited_(codes, low, high)
        if point is not None:
            codes.sub_(point)
        return join(codes.mul_(positive), x.shape, learned.inner.extents(x.shape))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None]:
        (gradient,) = gradients
        shifted, scale, positive = ctx.saved_tensors
        extents, (low, high) = ctx.learned.inner.extents(gradient.shape), ctx.learned.inner.code_range
        blocked = split(gradient, extents)[0]
        within = torch.ops.aten.hardtanh_backward  # zero outside: ten times as fast as filling by a mask
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = join(within(blocked, shifted, low, high), gradient.shape, extents)
        codes = limited_(shifted.round(), low, high)
        if ctx.point is None:
            falling = within(shifted, shifted, low, high).sub_(codes)  # the slope of the scale, negated
        else:
            falling = within(shifted - ctx.point, shifted, low, high).sub_(codes.sub_(ctx.point))
        if positive.numel() == 1:
            of_scale = torch.dot(blocked.reshape(-1), falling.reshape(-1))
        else:
            of_scale = (blocked * falling).sum([dim for dim, size in enumerate(positive.shape) if size == 1])
        of_scale = of_scale.reshape(scale.shape).to(scale.dtype) * -scale.sign()
        return of_x, of_scale * ctx.learned.gradient_scale(gradient.shape), None


def initial_scales(number_format: ScaledInteger, x: Tensor, *, skip_zeros: bool) -> Tensor:
    """`2 mean|x| / sqrt(qmax)` of each part, float32 `(parts,)`.

    A part of zeros takes the mean of the other parts; where all are zero, the codes reach to 1.

    Args:
        number_format: Says the parts and `qmax`, the largest code.
        x: Any values.
        skip_zeros: Leave zeros out of the mean: what was pruned says nothing about what is left.
    """
    top = number_format.code_range[1]
    rows = parts(x.detach().float(), number_format.extents(x.shape)).abs()  # NaN where a part is short
    counted = rows > 0 if skip_zeros else ~rows.isnan()
    means = rows.nansum(1) / counted.sum(1).clamp(min=1)
    positive = means[means > 0]
    means = means.where(means > 0, positive.mean() if positive.numel() else 1 / (2 * math.sqrt(top)))
    return (2 * means / math.sqrt(top)).clamp(_SMALLEST, _LARGEST)


def _positive(scale: Tensor) -> Tensor:
    return scale.float().abs().clamp(_SMALLEST, _LARGEST)  # also in a model made half after it learned


def _scaled(model: nn.Module) -> Iterator[tuple[Quantized, str, str]]:
    """The slots with a scaled integer: layer, slot, name."""
    for path, layer in model.named_modules():
        for slot in layer.available_slots() if isinstance(layer, Quantized) else ():
            name = f"{path}.{slot}"
            if isinstance(layer.slots[slot], LearnedScale):
                raise BadInput("the scales are learned already", key="learned_scales", found=name)
            if isinstance(layer.slots[slot], ScaledInteger):
                yield layer, slot, name


def _learned(model: nn.Module) -> list[tuple[Quantized, str, LearnedScale, str]]:
    return [
        (layer, slot, number_format, f"{path}.{slot}")
        for path, layer in model.named_modules()
        if isinstance(layer, Quantized)
        for slot, number_format in layer.slots.items()
        if isinstance(number_format, LearnedScale)
    ]


def _reason(layer: Quantized, slot: str) -> str | None:
    """Why the scale of a slot cannot be learned; None where it can."""
    number_format = layer.slots[slot]
    assert isinstance(number_format, ScaledInteger)
    if shares_slots(layer) and slot != "data_in":
        return "several parameters share the slot"
    if number_format.scale is None and not number_format.symmetric:
        return "the zero point comes from the values: calibrate first"
    if number_format.scale is not None or number_format.per == "tensor" or _of_parameter(layer, slot):
        return None
    return f"how many scales data has per {number_format.per} is not known: calibrate first"


def _of_parameter(layer: Quantized, slot: str) -> bool:
    return isinstance(getattr(layer, slot, None), Tensor)


def _learn(layer: Quantized, slot: str) -> None:
    number_format, name = layer.slots[slot], slot + SUFFIX
    assert isinstance(number_format, ScaledInteger)
    if hasattr(layer, name):
        raise BadInput("the layer has an attribute of the scale's name", found=name)
    known = number_format.scale
    place = next((p.device for p in layer.parameters()), None)
    start = torch.zeros(1, device=place) if known is None else torch.tensor(known, device=place).view(-1)
    learned = LearnedScale(number_format, nn.Parameter(start), _of_parameter(layer, slot))
    layer.set_slots({**layer.slots, slot: learned})
    if learned.is_parameter:
        with torch.enable_grad():
            layer.parameter(slot)  # as the layer lays it out: the scale starts, and is checked
    layer.register_parameter(name, learned.scale)


def _replace(layer: Quantized, slot: str, number_format: Format) -> None:
    layer.set_slots({**layer.slots, slot: number_format})
    layer._parameters.pop(slot + SUFFIX, None)
