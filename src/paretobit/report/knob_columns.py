"""Knobs as a reader sees them: one by one, or the ending that the knobs of several layers share.

The ending of `blocks_1.weight_width` is `weight_width`. Where a trial gives all knobs of an ending one value,
that is the trial's value of the ending; a trial in which this holds for every ending is *uniform*.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paretobit.errors import BadInput
from paretobit.formats import FORMATS, parse
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial

_PARAMETER = re.compile(r"\w+=")


@dataclass(frozen=True)
class KnobColumn:
    """A knob, or all knobs of an ending.

    Attributes:
        name: Of the knob, or the ending.
        members: The knobs behind it.
        ending: The ending.
    """

    name: str
    members: tuple[str, ...]
    ending: str

    def value(self, trial: Trial) -> Any:
        """The value in a trial; `ABSENT` where it is not active or its members disagree."""
        values = [trial.config[name] for name in self.members if name in trial.config]
        alike = values and all(value == values[0] for value in values)
        return values[0] if alike else ABSENT

    @property
    def title(self) -> str:
        """The ending in words, and whose it is: `weight width of blocks_1`."""
        words = self.ending.replace("_", " ")
        owner = self.name.removesuffix(self.ending).rstrip(".")
        return f"{words} of {owner}" if owner else words

    @property
    def label(self) -> str:
        """Title and unit, for an axis."""
        tied = ", the same in all layers" if len(self.members) > 1 else ""
        return f"{self.title}{tied}" + (" [bits]" if self.ending.endswith("width") else "")


class _Absent:
    """No value: not active, or not the same everywhere."""


ABSENT = _Absent()


def endings(study: Study, trials: Sequence[Trial] | None = None) -> dict[str, str]:
    """Knob to ending, for every knob that was active in some trial; `trials` where they are at hand."""
    prefixes = sorted(_prefixes(study.facts.get("space", {})), key=len, reverse=True)
    names = dict.fromkeys(name for trial in trials or study.trials for name in trial.config)
    return {name: _ending(name, prefixes) for name in names}


def knobs_of(study: Study) -> dict[str, KnobColumn]:
    """Endings that several layers share, then the knobs one by one."""
    by_ending: dict[str, list[str]] = {}
    for name, ending in endings(study).items():
        by_ending.setdefault(ending, []).append(name)
    shared = {e: KnobColumn(e, tuple(names), e) for e, names in by_ending.items() if len(names) > 1}
    single = {name: KnobColumn(name, (name,), e) for e, names in by_ending.items() for name in names}
    return {**shared, **{name: knob for name, knob in single.items() if name not in shared}}


def knob_named(study: Study, name: str, key: str = "knob") -> KnobColumn:
    """A knob by its name, or by the ending of several.

    Raises:
        BadInput: The study has no such knob.
    """
    known, by_ending = knobs_of(study), endings(study)
    if name in known:
        return known[name]
    own = [knob for knob, ending in by_ending.items() if ending == name]
    if not own:
        allowed = dict.fromkeys([*known, *by_ending.values()])
        raise BadInput("the study has no such knob", key=key, found=name, allowed=allowed)
    return known[own[0]]


def uniform_trials(study: Study, trials: Sequence[Trial]) -> list[Trial]:
    """Those of all trials of a study in which every ending has one value in all layers.

    None where no two layers have a knob of the same ending: all trials would be uniform.
    """
    by_ending = endings(study, trials)
    if len(set(by_ending.values())) == len(by_ending):
        return []

    def is_uniform(trial: Trial) -> bool:
        values: dict[str, Any] = {}
        return all(values.setdefault(by_ending[name], value) == value for name, value in trial.config.items())

    return [trial for trial in trials if is_uniform(trial)]


def varying(study: Study, trials: Sequence[Trial]) -> list[KnobColumn]:
    """The knobs that take two values or more in these trials."""
    return [k for k in knobs_of(study).values() if len(values_of(k, trials)) > 1]


def values_of(knob: KnobColumn, trials: Sequence[Trial]) -> list[Any]:
    """The values a knob takes: numbers ascending, formats by their bits, other text by the alphabet."""
    found = {_key(value): value for trial in trials if (value := knob.value(trial)) is not ABSENT}
    return [value for _, value in sorted(found.items(), key=lambda item: item[0])]


def is_numeric(values: Sequence[Any]) -> bool:
    """Whether all values are numbers."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def short(value: Any) -> str:
    """A value as a picture shows it: `integer(8, 4)` for `integer(width=8, frac_width=4)`."""
    if isinstance(value, str):
        return _PARAMETER.sub("", value)
    if value is None:
        return "not set"
    return f"{value:g}" if is_numeric([value]) else str(value)


def _prefixes(space: Mapping[str, Any]) -> Iterator[str]:
    """What stands before the endings: the prefix of every target, in a product those of its parts."""
    for part in space.get("parts", {}).values():
        yield from _prefixes(part)
    for target in space.get("targets", ()):
        if "prefix" in target:
            yield target["prefix"]
        elif target.get("knob"):
            yield target["knob"].rpartition(".")[0]


def _ending(name: str, prefixes: Sequence[str]) -> str:
    prefix = next((p for p in prefixes if name.startswith(f"{p}.")), None)
    return name.rpartition(".")[2] if prefix is None else name.removeprefix(f"{prefix}.")


def _key(value: Any) -> tuple[int, float, str]:
    if is_numeric([value]):
        return 0, float(value), ""
    if isinstance(value, str) and value.partition("(")[0] in FORMATS:
        try:
            return 1, float(parse(value).element_bits), value
        except BadInput:  # the name of a format alone, which needs parameters
            return 1, 0.0, value
    return 2, 0.0, str(value)
