"""What quantising costs: every number format in multiples of a plain copy.

The unit is `out.copy_(x)` into a preallocated tensor, timed before and after each call of a format,
in seconds of the processor: 512 × 1024 float32, standard normal, one thread, medians: a call ends
before another process gets its turn. What is compiled has run before. The allocator is pinned for both
sides, so that neither pays for fresh pages.

- eager: `quantize`. Where the scale is searched for (`percentile`, `mse`): `quantize` given the scale.
- compiled: `compiled(format)`. Where the scale is a mean or searched for, which stays outside the
  compiled part: `with_scales`, compiled, given the scale.
- scales: finding those means and searching for those scales, apart; no limit.
- small: eager on a 32 × 64 tensor, in multiples of `integer(width=8)` on the same tensor. The limits
  are for element formats and for block formats; between them stand those that find one scale for many
  elements in the data, which are reported.
- equal: whether the compiled `quantize` gives the bits that the eager one gives.

Stochastic rounding is reported without limits. Nothing is compiled where there is no C++ compiler. The
exit code is 1 where a limit is exceeded or compiled and eager bits differ.

    python benchmarks/formats.py [--json] [--no-record] [--only NAME ...] [--shape 512x1024] [--warm-up 4]
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from output import parser_of, show
from timing import Ratio, multiple
from torch import Tensor

from paretobit.formats import BlockFormat, Format, ScaledFormat, compiled, parse
from paretobit.runtime import cpp_compiler, use_one_thread

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),  # tensors come from the heap
    "MALLOC_TRIM_THRESHOLD_": str(2**34),  # which is never given back
    "MALLOC_TOP_PAD_": str(2**28),  # and grows by much at a time
}
SHAPE, SMALL_SHAPE = (512, 1024), (32, 64)
PAIRS, SMALL_PAIRS, SMALL_CALLS = 45, 15, 50
REFERENCE = "integer(width=8)"
APART = ("mean", "search")  # scales that stay outside the compiled part


@dataclass(frozen=True)
class Family:
    """Formats with the same limits; `scaled_compiled` is for those whose scale follows the data."""

    formats: tuple[str, ...]
    eager: float
    compiled: float = 2
    scaled_compiled: float = 4
    small: float = 4


PLAN = (
    Family(("integer(width=8)", "integer(width=8, rounding=floor)", "integer(width=8, rounding=stochastic)"), eager=4),
    Family(
        (
            "scaled_integer(width=8)",
            "scaled_integer(width=8, per=channel)",
            "scaled_integer(width=4, per=group, group_size=128)",
            "scaled_integer(width=8, per=channel, symmetric=false)",
            "scaled_integer(width=8, scale=0.05)",
            "scaled_integer(width=8, per=channel, calibration=percentile)",
            "scaled_integer(width=8, per=channel, calibration=mse)",
        ),
        eager=10,
    ),
    Family(
        (
            "minifloat_ieee(width=8, exponent_width=4)",
            "minifloat_denorm(width=8, exponent_width=4)",
            "fp8_e4m3",
            "fp8_e5m2",
            "fp6_e3m2",
            "fp6_e2m3",
            "fp4_e2m1",
            "bf16",
            "fp16",
        ),
        eager=10,
    ),
    Family(("log(width=8)", "log(width=4)"), eager=15),
    Family(
        (
            "binary",
            "binary(bipolar=false)",
            "binary(stochastic=true)",
            "binary_scaling",
            "binary_residual",
            "ternary",
            "ternary(threshold=0.5, scaling=false)",
        ),
        eager=20,
    ),
    Family(
        (
            "block_fp(width=8)",
            "block_minifloat(width=8, exponent_width=4)",
            "mxint8",
            "mxfp8_e4m3",
            "mxfp8_e5m2",
            "mxfp6_e3m2",
            "mxfp6_e2m3",
            "mxfp4",
            "nvfp4",
        ),
        eager=25,
        compiled=6,
        scaled_compiled=6,
        small=10,
    ),
    # Its grid reaches below float32's normal numbers: it is computed in float64.
    Family(("block_log(width=8)",), eager=40, compiled=9, scaled_compiled=9, small=10),
)


@dataclass(frozen=True)
class Figures:
    """Multiples of the unit, measured or allowed; None: not measured, or no limit."""

    eager: float | None
    compiled: float | None
    small: float | None
    scales: float | None = None

    def within(self, limits: Figures) -> bool:
        """Whether no limit is exceeded."""
        pairs = zip(asdict(self).values(), asdict(limits).values(), strict=True)
        return all(limit is None or figure is None or figure <= limit for figure, limit in pairs)


def limits(family: Family, number_format: Format) -> Figures:
    """What a format may cost."""
    traits = number_format.traits
    if not traits.deterministic:
        return Figures(None, None, None)
    fixed = traits.scale in ("none", "fixed")
    return Figures(
        family.eager,
        family.compiled if fixed else family.scaled_compiled,
        family.small if fixed or isinstance(number_format, BlockFormat) else None,
    )


def measure(number_format: Format, x: Tensor, small: Tensor) -> tuple[dict[str, Ratio | None], bool | None]:
    """What a format costs, and whether compiled and eager bits are equal (None: it draws them)."""
    out, reference = torch.empty_like(x), parse(REFERENCE)

    def in_copies(function: Callable[..., object], *arguments: Any, pairs: int = PAIRS) -> Ratio:
        return multiple(lambda: function(*arguments), lambda: out.copy_(x), 1, pairs)

    traits = number_format.traits
    eager: tuple[Any, ...] = (number_format.quantize, x)
    fast, equal = eager, None
    found: dict[str, Ratio | None] = {"compiled": None, "scales": None}
    found["small"] = multiple(
        lambda: number_format.quantize(small), lambda: reference.quantize(small), SMALL_CALLS, SMALL_PAIRS
    )
    if isinstance(number_format, ScaledFormat) and traits.scale in APART:
        scales = number_format.scales(x)
        found["scales"] = in_copies(number_format.scales, x, pairs=5)
        fast = (torch.compile(number_format.with_scales, dynamic=False), x, scales)
        if traits.scale == "search":
            eager = (number_format.with_scales, x, scales)
    found["eager"] = in_copies(*eager)
    if cpp_compiler() is None:
        return found, None
    quantize = compiled(number_format)
    if found["scales"] is None:
        fast = (quantize, x)
    if traits.deterministic:
        equal = torch.equal(quantize(x).view(torch.int32), number_format.quantize(x).view(torch.int32))
    fast[0](*fast[1:])  # compiled now, and not while it is timed
    found["compiled"] = in_copies(*fast)
    return found, equal


def warm_up(x: Tensor, duration: float) -> None:
    """Use a compiled format for a while: the compiler's workers, once started, disturb for seconds."""
    quantize = parse(REFERENCE).quantize if cpp_compiler() is None else compiled(parse(REFERENCE))
    end = time.perf_counter() + duration
    quantize(x)
    while time.perf_counter() < end:
        quantize(x)


def planned(only: Iterable[str]) -> list[tuple[Family, str]]:
    """The formats to measure; `only` asks for some by name or by whole text."""
    return [
        (family, text)
        for family in PLAN
        for text in family.formats
        if not only or text in only or parse(text).name in only
    ]


def pin_allocator() -> None:
    """Start again with a pinned allocator: it reads its settings when the process starts."""
    if not ALLOCATOR.keys() <= os.environ.keys():  # set from here on, so this happens once
        os.execve(sys.executable, sys.orig_argv, ALLOCATOR | os.environ)


def table(result: dict[str, dict[str, Any]]) -> str:
    """Aligned columns: each figure and its limit."""
    lines = [f"{'':60}{'eager':>14}{'compiled':>14}{'small':>14}{'scales':>9}  equal  within"]
    for text, row in result.items():
        figures = {key: "-" if row[key] is None else f"{row[key]:.2f}" for key in row["limits"]}
        cells = [f"{figures[key]} / {row['limits'][key] or '-'}" for key in ("eager", "compiled", "small")]
        equal = {True: "yes", False: "NO", None: "-"}[row["equal"]]
        within = "yes" if row["within"] else "NO"
        columns = "".join(f"{cell:>14}" for cell in cells)
        lines.append(f"{text:60}{columns}{figures['scales']:>9}  {equal:5}  {within}")
    return "\n".join(lines)


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="formats by name or whole text")
    parser.add_argument("--shape", default="x".join(map(str, SHAPE)), help="of the large tensor")
    parser.add_argument("--warm-up", type=float, default=4, help="seconds before anything is measured")
    arguments = parser.parse_args()
    plan = planned(arguments.only)
    if not plan:
        parser.error(f"no such format in the plan: {' '.join(arguments.only)}")
    pin_allocator()

    use_one_thread()
    torch.manual_seed(0)
    x, small = torch.randn([int(size) for size in arguments.shape.split("x")]), torch.randn(SMALL_SHAPE)
    warm_up(x, arguments.warm_up)
    result = {}
    for family, text in plan:
        number_format = parse(text)
        allowed = limits(family, number_format)
        found, equal = measure(number_format, x, small)
        figures = Figures(**{name: None if one is None else round(one.median, 2) for name, one in found.items()})
        spread = {name: one.spread for name, one in found.items() if one is not None}
        more = {"within": figures.within(allowed), "equal": equal, "spread": spread}
        result[text] = {**asdict(figures), "limits": asdict(allowed), **more}
    show(result, arguments, table(result))
    return int(not all(row["within"] and row["equal"] is not False for row in result.values()))


if __name__ == "__main__":
    sys.exit(main())
