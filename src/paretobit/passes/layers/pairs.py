"""Pairs of formats that a device can multiply.

A pair is `[data, weight]`; each is a pattern: a format's name, in which `*` and `?` stand for
letters, and those of its parameters that matter: `integer(width=8)` is every integer of 8 bits,
`mx*` every microscaling format, `*` any format, `float` full precision.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paretobit.document import parse_value
from paretobit.errors import BadInput, under
from paretobit.formats import FORMATS, FULL, Format, parameters_of

_PATTERN = re.compile(r"(?P<name>[\w*?]+)\s*(?:\((?P<parameters>.*)\))?")
_GRAMMAR = "name or name(parameter=value, ...), with * and ? in the name"


@dataclass(frozen=True)
class FormatPattern:
    """Formats of some name with some parameters.

    Attributes:
        text: As it was written.
        name: Name, `*` and `?` standing for letters.
        parameters: Values that parameters must have.
    """

    text: str
    name: str
    parameters: tuple[tuple[str, Any], ...]

    @classmethod
    def read(cls, text: Any) -> FormatPattern:
        """The pattern of a text.

        Raises:
            BadInput: Not a pattern, or no format matches it.
        """
        match = _PATTERN.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None:
            raise BadInput("not a pattern of formats", found=text, allowed=_GRAMMAR)
        parameters = []
        for item in filter(None, (part.strip() for part in (match["parameters"] or "").split(","))):
            key, equals, value = (part.strip() for part in item.partition("="))
            if not equals:
                raise BadInput("not a pattern of formats", found=text, allowed=_GRAMMAR)
            parameters.append((key, parse_value(value)))
        families = [e.value for e in FORMATS if fnmatch.fnmatchcase(e.name, match["name"])]
        if not families:
            raise BadInput(f"unknown {FORMATS.noun}", found=match["name"], allowed=FORMATS.names())
        known = {f.name for family in families for f in parameters_of(family)}
        for key, _ in parameters:
            if key not in known:
                raise BadInput(f"no parameter of '{match['name']}'", found=key, allowed=sorted(known))
        return cls(text, match["name"], tuple(parameters))

    def matches(self, number_format: Format) -> bool:
        """Whether a format has the name and the parameters."""
        if not fnmatch.fnmatchcase(number_format.name, self.name):
            return False
        own = number_format.parameters
        return all(key in own and own[key] == value for key, value in self.parameters)


@dataclass(frozen=True)
class AllowedPairs:
    """The pairs of data and weight formats that a device multiplies; every pair where there are none."""

    pairs: tuple[tuple[FormatPattern, FormatPattern], ...] = ()

    @classmethod
    def read(cls, pairs: Sequence[Sequence[str]] | None) -> AllowedPairs:
        """From pairs of texts.

        Raises:
            BadInput: Not pairs of patterns.
        """
        if pairs is None:
            return cls()
        if isinstance(pairs, str | Mapping) or not isinstance(pairs, Iterable) or not pairs:
            raise BadInput("not a list of pairs", key="allowed", found=pairs, allowed="[[data, weight], ...]")
        read = []
        for pair in pairs:
            if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
                raise BadInput("not a pair of formats", key="allowed", found=pair, allowed="[data, weight]")
            with under("allowed"):
                read.append((FormatPattern.read(pair[0]), FormatPattern.read(pair[1])))
        return cls(tuple(read))

    def allow(self, slots: Mapping[str, Format]) -> bool:
        """Whether a product may have these formats; full precision on both sides is always allowed."""
        data, weight = slots.get("data_in", FULL), slots.get("weight", FULL)
        if not self.pairs or (data is FULL and weight is FULL):
            return True
        return any(one.matches(data) and other.matches(weight) for one, other in self.pairs)

    def check(self, name: str, slots: Mapping[str, Format]) -> None:
        """Refuse formats of the product `name` that make no pair.

        Raises:
            BadInput: They make none.
        """
        if not self.allow(slots):
            found = f"{slots.get('data_in', FULL)} x {slots.get('weight', FULL)}"
            allowed = [f"{data.text} x {weight.text}" for data, weight in self.pairs]
            problem = f"'{name}' has a pair of formats that is not allowed"
            raise BadInput(problem, key="allowed", found=found, allowed=allowed)
