"""Two trials side by side: their metrics, the knobs that differ, and the formats that differ layer by layer."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from paretobit.errors import BadInput
from paretobit.report.families import layer_cells
from paretobit.report.figures.format_map import best_trial
from paretobit.report.metrics import metrics_of, unit_of
from paretobit.report.tables import Row
from paretobit.spaces.knobs import Config
from paretobit.studies.study import Study

FLOAT, BEST = "float", "best"
ABSENT = "-"
T = TypeVar("T", bound=Hashable)
"""What a table shows where one side has no such knob or metric."""


@dataclass(frozen=True)
class Side:
    """One of the two.

    Attributes:
        title: `trial 3`, or `float`.
        number: Of the trial; None for the float model.
        state: Of the trial; `baseline` for the float model.
        config: None for the float model.
        metrics: Measured on the rows that chose.
        test: Measured on the test split, where it was.
    """

    title: str
    number: int | None
    state: str
    config: Config | None
    metrics: dict[str, float]
    test: dict[str, float]


@dataclass(frozen=True)
class SideBySide:
    """Two trials compared; the rows have the sides' titles as columns.

    Attributes:
        sides: Both.
        metrics: One row a metric, with unit and difference (second minus first).
        knobs: The knobs whose values differ.
        layers: The places in layers whose formats differ.
        alike: How many knobs, and how many places, are the same.
    """

    sides: tuple[Side, Side]
    metrics: list[Row]
    knobs: list[Row]
    layers: list[Row]
    alike: tuple[int, int]


def side_of(study: Study, name: str) -> Side:
    """A trial by its number, `best` for the answer to the run's question, or `float` for the baseline.

    Raises:
        BadInput: There is no such trial, or none answers the question.
    """
    tests = study.facts.get("test", {})
    if name == FLOAT:
        return Side(FLOAT, None, "baseline", None, dict(study.baseline), tests.get("baseline", {}))
    if name == BEST:
        trial = best_trial(study)
    elif name.lstrip("-").isdigit():
        trial = study[int(name)]
    else:
        allowed = f"0 to {len(study) - 1}, {BEST} or {FLOAT}"
        raise BadInput("no such trial", key="trial", found=name, allowed=allowed)
    metrics, test = dict(trial.metrics), tests.get(str(trial.number), {})
    return Side(f"trial {trial.number}", trial.number, trial.state, trial.config, metrics, test)


def compare_trials(study: Study, a: str, b: str) -> SideBySide:
    """Two trials of a study.

    Args:
        study: Their study.
        a: Number of a trial, `best` or `float`.
        b: The other one.

    Raises:
        BadInput: There is no such trial, or both are the same one.
    """
    one, other = side_of(study, a), side_of(study, b)
    if one.title == other.title:
        raise BadInput("a trial is compared with another one", key="trial", found=[a, b])
    knobs, same_knobs = _different(one, other, dict(one.config or {}), dict(other.config or {}))
    places, same_places = _different(one, other, _places(study, one), _places(study, other))
    return SideBySide(
        (one, other),
        _metrics(study, one, other),
        [{"Knob": name, **values} for name, values in knobs.items()],
        [{"Layer": layer, "Place": place, **values} for (layer, place), values in places.items()],
        (same_knobs, same_places),
    )


def _places(study: Study, side: Side) -> dict[tuple[str, str], str]:
    """Layer and slot to what it holds."""
    rows = layer_cells(study, side.config).items()
    return {(layer, place): cell.text for layer, cells in rows for place, cell in cells.items()}


def _metrics(study: Study, one: Side, other: Side) -> list[Row]:
    rows = []
    for prefix, first, second in (("", one.metrics, other.metrics), ("test_", one.test, other.test)):
        for name in (n for n in metrics_of(study) if n in first or n in second):
            both = name in first and name in second
            rows.append(
                {
                    "Metric": prefix + name,
                    one.title: first.get(name, ABSENT),
                    other.title: second.get(name, ABSENT),
                    "Difference": second[name] - first[name] if both else ABSENT,
                    "Unit": unit_of(study, name),
                }
            )
    return rows


def _different(one: Side, other: Side, first: Mapping[T, Any], second: Mapping[T, Any]) -> tuple[dict[T, Row], int]:
    """The entries that differ, as a row of both values, and the number of those that do not."""
    names = dict.fromkeys([*first, *second])
    differing = {
        name: {one.title: first.get(name, ABSENT), other.title: second.get(name, ABSENT)}
        for name in names
        if name not in first or name not in second or first[name] != second[name]
    }
    return differing, len(names) - len(differing)
