"""The page of the number formats and its pictures, written from the registry."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from grid_picture import grid_picture
from signal_to_noise import equal_bits, over_sigma

from paretobit.formats import FORMATS, BlockFormat, Format, ScaledFormat, make, parameters_of
from paretobit.formats.block import SharedExponentFormat
from paretobit.formats.partition import count
from paretobit.registry import Entry
from paretobit.report import to_markdown
from paretobit.schemas import meanings

IMAGES = "images/formats"
EXAMPLE = {"width": 8, "exponent_width": 4}
"""Values of the parameters that a format needs: in the table of a section."""
PICTURED = {"width": 5, "exponent_width": 2}
"""The same in its picture: few enough values to see them apart."""
EVERYWHERE = ("gradient",)  # parameters that every format has come last
SHAPE = (64, 64)
RAMP = 2**12
GROUPS = {
    "Element formats": "Every element by itself; nothing depends on the data around it.",
    "Scaled formats": "Codes times float32 scales, which follow the data of a tensor, a channel or a group.",
    "Block formats": "Elements of a block share an exponent. Blocks lie along an axis, or over several; "
    "the last one of a row is shorter where the size does not divide it.",
    "Microscaling formats": "Block formats whose elements and scales a standard fixes.",
}
_HEAD = """# Number formats

Written by `make docs` from the registry. [reference.md](reference.md) has the short list.

## How formats are chosen

A layer has slots: `data_in`, `weight` and `bias`. Each takes a format of its own, and layers mix them freely.
A format is given whole, as a table or as text, or by its parameters with the slot's name before them.
`name` is the format of those that do not name one themselves:

```toml
name = "minifloat_ieee"
weight_width = 8
weight_exponent_width = 4
data_in = "mxfp8_e4m3"
bias = { name = "integer", width = 16, frac_width = 8 }
```

[configuration.md](configuration.md) says where these keys stand in a file, and how to give several choices.

Where a layer has several weights (attention, recurrent layers), they share the slot, each with scales of its own.
`data_in` of a recurrent layer is the input of each of its layers and the state that each step multiplies; gates, the
cell state and what is mixed element by element stay float.

A slot that is not set stays in full precision, except for the bias: it follows the accumulator, not the
weight. Between integer inputs and integer weights that is a fixed-point format with the accumulator's
fractional bits and width; otherwise it is float32.

## What all formats promise

- **Rounding** goes to the nearest value, given the scale; a tie goes to the even code. `integer` can also round
  down or draw. `binary` and `ternary` decide by a threshold.
- **Saturation**: what is too large becomes the largest value, infinity too. NaN stays NaN. No format has
  infinities or NaN of its own.
- **Zero** stays zero where there is a zero. A block of zeros gives zeros.
- **Types**: float64, float32, float16 and bfloat16. The half types are computed in float32 and rounded back.
- **Gradient**: straight-through. `gradient = "pass"` is that of the identity; `gradient = "mask"` makes it zero
  where the value saturates.
- **Bits**: `bits(shape)` counts what storing takes, with shared exponents and scales.

From Python, a format is a function: `paretobit.formats.make("integer", width=8).quantize(x)`.
`paretobit.formats.compiled(format)` gives the same bits faster on large tensors, where there is a C++ compiler;
`benchmarks/formats.py` says how fast.

## How to write your own

One frozen dataclass, whose fields are its parameters, and one line that registers it:
`@FORMATS.register("name")`. It then works in every slot, in files, in searches and on this page.
`paretobit.testing.FormatConformance` tests what its `traits` declare: inherit it and give it your format by one
fixture. [CONTRIBUTING.md](../CONTRIBUTING.md) has the details.
"""
_KEPT = """## All formats at equal storage bits

The signal over the rounding error (SQNR), in decibels; more is better. The data are 256 × 256 values of
deviation 1: normal, and heavy-tailed (Student's t with three degrees of freedom). Formats that do not look at
the data have the parameters that suit the normal data best. The bits per element contain the scales.
"""
_SIGMA = """## Over the scale of the data

The same ratio on normal data of deviation σ. Shared exponents of eight bits follow the data over all these
decades, and `max − min` stays below one decibel. A format with a fixed range collapses outside it.
"""


def formats_page() -> str:
    """The page as text."""
    parts = [_HEAD]
    for group, entries in grouped().items():
        parts.append(f"## {group}\n\n{GROUPS[group]}\n")
        parts += [_section(entry) for entry in entries]
    parts.append(_KEPT)
    parts += [f"### About {bits} bits\n\n{_table(rows)}" for bits, rows in equal_bits().items()]
    parts.append(f"{_SIGMA}\n{_table(over_sigma())}")
    return "\n".join(parts)


def pictures() -> dict[str, str]:
    """File name to SVG text; a format without a list of values has no picture."""
    drawn = {}
    for entry in FORMATS:
        number_format = example(entry, PICTURED)
        values = pictured_values(number_format)
        if values:
            drawn[f"{entry.name}.svg"] = grid_picture(values, _caption(number_format, values))
    return drawn


def grouped() -> dict[str, list[Entry[type[Format]]]]:
    """Every registered format by the heading it stands under."""
    groups: dict[str, list[Entry[type[Format]]]] = {group: [] for group in GROUPS}
    for entry in FORMATS:
        groups[_group(entry.value)].append(entry)
    return groups


def example(entry: Entry[type[Format]], values: Mapping[str, Any] = EXAMPLE) -> Format:
    """A format of the family, every parameter that can be unset left so."""
    return make(entry.name, **_needed(entry.value, values))


def toml_example(entry: Entry[type[Format]]) -> str:
    """A configuration entry that gives weights this format."""
    name, own = f"name = {json.dumps(entry.name)}\n", vars(entry.value).get("__annotations__", {})
    shown = _needed(entry.value, EXAMPLE)
    if not shown:
        free = {f.name: f.default for f in parameters_of(entry.value) if f.name not in EVERYWHERE}
        plain = {key: value for key, value in free.items() if value is not None}
        first = sorted(plain, key=lambda key: key not in own)[:1]  # its own before what it inherits
        shown = {key: plain[key] for key in first}
    if not shown:
        return f"weight = {json.dumps(entry.name)}\n"
    return name + "".join(f"weight_{key} = {json.dumps(value)}\n" for key, value in shown.items())


def pictured_values(number_format: Format) -> list[float]:
    """Values to draw: of an element at scale one, or those that a ramp from -1 to 1 becomes."""
    if isinstance(number_format, BlockFormat):
        return list(number_format.elements.values())
    if isinstance(number_format, ScaledFormat):
        ramp = torch.linspace(-1, 1, RAMP, dtype=torch.float64)
        return sorted(set(number_format.quantize(ramp).tolist()))
    if hasattr(number_format, "grid"):
        return list(number_format.grid.values())
    return [] if number_format.describe().codes is None else number_format.codes().tolist()


def _section(entry: Entry[type[Format]]) -> str:
    family = entry.value
    parts = [
        f"### {entry.name}",
        f"{entry.summary} Class `{family.__name__}`.",
        f"- Values: `{family.formula}`\n- Source: {family.source}",
    ]
    picture = f"{IMAGES}/{entry.name}.svg"
    if pictured_values(example(entry, PICTURED)):
        parts.append(f"![The values of {_text(example(entry, PICTURED))}]({picture})")
    if parameters_of(family):
        parts.append(_table(_parameters(family)).rstrip())
    parts.append(_table(_facts(example(entry))).rstrip())
    parts.append(f"```toml\n{toml_example(entry)}```")
    return "\n\n".join(parts) + "\n"


def _group(family: type[Format]) -> str:
    if issubclass(family, BlockFormat):
        standard = family.__module__ == "paretobit.formats.microscaling"
        return "Microscaling formats" if standard else "Block formats"
    return "Scaled formats" if issubclass(family, ScaledFormat) else "Element formats"


def _needed(family: type[Format], values: Mapping[str, Any]) -> dict[str, Any]:
    return {f.name: values[f.name] for f in parameters_of(family) if f.default is dataclasses.MISSING}


def _parameters(family: type[Format]) -> list[dict[str, Any]]:
    words = meanings(family)
    return [
        {"parameter": f"`{f.name}`", "default": _default(f.default), "meaning": words.get(f.name, "")}
        for f in sorted(parameters_of(family), key=lambda f: f.name in EVERYWHERE)
    ]


def _default(value: Any) -> str:
    if value is dataclasses.MISSING:
        return "needed"
    return "unset" if value is None else f"`{json.dumps(value)}`"


def _facts(number_format: Format) -> list[dict[str, Any]]:
    description, traits = number_format.describe(), number_format.traits
    unit = ""
    if isinstance(number_format, BlockFormat):
        unit = ", over all scales"
    elif isinstance(number_format, ScaledFormat) and traits.scale != "fixed":
        unit = ", in units of the scale"
    flags = {
        "zero": traits.has_zero,
        "symmetric": traits.symmetric,
        "deterministic": traits.deterministic,
        "nearest": traits.nearest,
        "idempotent": traits.idempotent,
    }
    facts = {
        f"range{unit}": f"{_number(description.minimum)} to {_number(description.maximum)}",
        f"smallest positive value{unit}": _number(description.smallest_positive),
        "values of an element": "no list" if description.codes is None else f"{description.codes:,}",
        "bits of a 64 × 64 tensor": _storage(number_format),
        "traits": ", ".join([*(flag for flag, holds in flags.items() if holds), f"scale: {traits.scale}"]),
    }
    column = f"`{_text(number_format)}`"
    return [{"example": fact, column: value} for fact, value in facts.items()]


def _storage(number_format: Format) -> str:
    """The bits and how they come about: elements, parts that share something, the tensor."""
    elements, total = math.prod(SHAPE), number_format.bits(SHAPE)
    terms = [f"{elements:,} elements × {number_format.element_bits}"]
    shared = total - elements * number_format.element_bits
    if shared:
        shares = count(SHAPE, number_format.extents(SHAPE)) if hasattr(number_format, "extents") else 1
        each, rest = divmod(shared, shares)
        noun = "blocks" if isinstance(number_format, BlockFormat) else "scales"
        noun = noun if shares > 1 else noun.removesuffix("s")
        terms += [f"{shares:,} {noun} × {each}"] + ([f"{rest} of the tensor"] if rest else [])
    return f"{' + '.join(terms)} = {total:,}, or {total / elements:.6g} an element"


def _caption(number_format: Format, values: Sequence[float]) -> str:
    where = ""
    if isinstance(number_format, BlockFormat):
        shared = isinstance(number_format, SharedExponentFormat)
        where = ", in a block whose top binade starts at 1" if shared else ", in units of the scale"
    elif isinstance(number_format, ScaledFormat):
        where = ", at the scale of data from -1 to 1"
    return f"{_text(number_format)}: {len(values):,} values{where}"


def _text(number_format: Format) -> str:
    """The format as one would write it: only the parameters that it needs."""
    needed = _needed(type(number_format), number_format.parameters)
    inside = ", ".join(f"{key}={value}" for key, value in needed.items())
    return f"{number_format.name}({inside})" if inside else number_format.name


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.7g}"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table; a bar within a cell does not end it."""
    return to_markdown([{key: _cell(value) for key, value in row.items()} for row in rows])


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "&#124;")
