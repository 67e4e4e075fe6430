"""One entry of a quantisation configuration: a format's name and, per slot, whole formats or parameters.

The keys are the reports' (`data_in_width`, `weight_frac_width`, `bias_width` …) and, for whole
formats, the slot's own name (`data_in = {width = 8, frac_width = 4}`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import Field, model_validator

from paretobit.errors import BadInput, under
from paretobit.formats import FORMATS, FULL, Format, make, parameters_of, parse
from paretobit.schemas import OpenSchema

SLOTS = ("data_in", "weight", "bias")
DEFAULT_FORMAT = "integer"
NOT_SET = "NA"
"""As a format's name: full precision. As a parameter's value: the parameter is not given."""
FLOAT_NAMES = ("float", NOT_SET)
OF_THE_LAYER = {"binary_training": "weight_binary_training"}
"""Keys of the reports that name no slot, and the parameter they mean."""
DEFAULT_SLOTS = ("data_in", "weight")
"""Where a format goes that an entry names without saying where."""


@dataclass(frozen=True)
class LayerEntry:
    """A configuration entry taken apart; values may be scalars or, in a search, lists of choices.

    Attributes:
        name: Name of the format, or of each choice; None where no name is given.
        whole: Slot to whole format(s).
        parameters: Slot to parameter to value(s).
        written: The slots that the entry itself names.
    """

    name: Any = None
    whole: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    written: tuple[str, ...] = ()


class EntrySettings(OpenSchema):
    """The keys of an entry."""

    more: ClassVar[Mapping[str, str]] = {"SLOT_PARAMETER": "a parameter of a slot's format: weight_width = 8"}
    """Keys that are made of others, and what they are."""

    name: Any = Field(
        None, description=f"format of what names none itself; NA: full precision; unset: {DEFAULT_FORMAT}"
    )
    data_in: Any = Field(None, description="whole format of the input: table, text or NA")
    weight: Any = Field(None, description="whole format of the weights, or of a function's second operand")
    bias: Any = Field(None, description="whole format of the bias")
    binary_training: Any = Field(None, description="the reports' name for weight_binary_training")

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> None:
        """Refuse what is no entry."""
        split_entry(raw)

    @model_validator(mode="before")
    @classmethod
    def _is_one(cls, raw: Any) -> Any:
        cls.read(raw)
        return raw["config"] if set(raw) == {"config"} else raw


def split_entry(entry: Mapping[str, Any]) -> LayerEntry:
    """Take an entry apart; `{"config": {...}}` around it is accepted.

    A name without a slot means the data and the weights.

    Raises:
        BadInput: A key that is neither `name`, nor a slot, nor `<slot>_<parameter>`.
    """
    if not isinstance(entry, Mapping):
        raise BadInput("not a table", found=entry, allowed="name, and formats per slot")
    if set(entry) == {"config"}:
        return split_entry(entry["config"])
    whole: dict[str, Any] = {}
    parameters: dict[str, dict[str, Any]] = {}
    for written, value in entry.items():
        key = OF_THE_LAYER.get(written, written)
        slot = next((s for s in SLOTS if key == s or key.startswith(s + "_")), None)
        if key == "name":
            continue
        if slot is None:
            raise BadInput("unknown key", key=key, found=key, allowed=_known_keys(_names(entry.get("name"))))
        if key == slot:
            whole[slot] = value
        else:
            parameters.setdefault(slot, {})[key.removeprefix(slot + "_")] = value
    for slot in whole:
        if slot in parameters:
            first = f"{slot}_{next(iter(parameters[slot]))}"
            raise BadInput("a slot is given both whole and by parameter", key=slot, found=[slot, first])
    written_slots = (*whole, *parameters)
    if "name" in entry and not written_slots:
        parameters = {slot: {} for slot in DEFAULT_SLOTS}
    return LayerEntry(entry.get("name"), whole, parameters, written_slots)


def is_float(name: Any) -> bool:
    """Whether a name means full precision."""
    return isinstance(name, str) and name in FLOAT_NAMES


def parameter_names(format_name: str) -> list[str]:
    """Parameters of a format."""
    return [f.name for f in parameters_of(FORMATS[format_name])]


def whole_format(value: Any, name: str | None) -> Format:
    """A whole format given as a table, as text, or as a `Format`.

    Args:
        value: `{"width": 8}`, `"integer(width=8)"`, `"NA"`, or a `Format`.
        name: Format a table without `name` means.
    """
    if isinstance(value, Format):
        return value
    if isinstance(value, str):
        return FULL if is_float(value) else parse(value)
    if not isinstance(value, Mapping):
        raise BadInput("not a format", found=value, allowed="a table, text such as 'integer(width=8)', or 'NA'")
    parameters = dict(value)
    chosen = parameters.pop("name", name or DEFAULT_FORMAT)
    return FULL if is_float(chosen) else make(chosen, **parameters)


def slot_formats(entry: Mapping[str, Any]) -> dict[str, Format]:
    """The format of each slot that an entry without choices names."""
    parts = split_entry(entry)
    if parts.name is not None and is_float(parts.name):
        return {}
    name = parts.name if parts.name is not None else DEFAULT_FORMAT
    if name not in FORMATS:
        raise BadInput(f"unknown {FORMATS.noun}", key="name", found=name, allowed=FORMATS.names())
    formats = {slot: slot_whole(slot, value, name) for slot, value in parts.whole.items()}
    for slot, parameters in parts.parameters.items():
        formats[slot] = slot_format(name, slot, parameters)
    return {slot: formats[slot] for slot in SLOTS if slot in formats}


def slot_whole(slot: str, value: Any, name: str) -> Format:
    """A whole format; errors name the slot."""
    with under(slot):
        return whole_format(value, name)


def slot_format(name: str, slot: str, parameters: Mapping[str, Any]) -> Format:
    """A format from its parameters; errors name the key as the user wrote it."""
    given = {key: value for key, value in parameters.items() if value not in (None, NOT_SET)}
    try:
        return make(name, **given)
    except BadInput as error:
        error.key = f"{slot}_{error.key}" if error.key else slot
        raise


def _names(name: Any) -> list[str]:
    names = name if isinstance(name, list | tuple) else [name]
    return [n for n in names if n in FORMATS] or [DEFAULT_FORMAT]


def _known_keys(names: Iterable[str]) -> list[str]:
    parameters = dict.fromkeys(p for name in names for p in parameter_names(name))
    return ["name", *OF_THE_LAYER, *SLOTS, *(f"{slot}_{p}" for slot in SLOTS for p in parameters)]
