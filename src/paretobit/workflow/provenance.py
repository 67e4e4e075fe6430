"""What a study records about its run, whose study it is, and which trials may move to another."""

from __future__ import annotations

import itertools
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from paretobit._version import __version__
from paretobit.errors import BadInput, StudyError
from paretobit.search import SPACES, Problem, Study, Trial
from paretobit.search.problem import Vocabulary
from paretobit.search.runners import BasicEvaluation
from paretobit.search.trial import GIVEN, State

SPACE = "space"
_MEASURED_ALIKE = ("fingerprints", "runners", "eval_mode")


def check_or_record(study: Study, problem: Problem, identity: Mapping[str, Any], best: str | None) -> None:
    """Record what the run is in a new study; refuse a study that is another search's.

    Args:
        study: New, or to be resumed.
        problem: What is searched.
        identity: All that a resumed study must share.
        best: The question whose answer is kept.

    Raises:
        StudyError: They differ; what differs is named.
    """
    for name, value in identity.items():
        value = json.loads(json.dumps(value))
        if name in study.facts and study.facts[name] != value:
            hint = "; --extend keeps the trials that are still valid" if name == SPACE else ""
            raise StudyError(
                f"the study is another search's: {_difference(name, study.facts[name], value)}{hint}"
            )
    if "created" in study.facts:
        return
    vocabulary = Vocabulary(problem.runners)
    kinds = {metric.name: runner.kind for runner in problem.runners for metric in runner.metrics}
    study.record(
        **identity,
        baseline=dict(problem.baseline),
        best=best,
        size=str(problem.tree.size),
        metrics={
            m.name: {"direction": m.direction, "unit": m.unit, "cheap": m.cheap, "kind": kinds[m.name]}
            for m in vocabulary.metrics.values()
        },
        short_names={m.short: m.name for m in vocabulary.metrics.values() if m.short},
        samples={r.settings.split: r.samples for r in problem.runners if isinstance(r, BasicEvaluation)},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=sys.argv,
        versions={"paretobit": __version__, "python": platform.python_version(), "torch": torch.__version__},
    )


def set_aside(path: Path, space: Mapping[str, Any]) -> Study | None:
    """Rename a study of another space, so that a new one can take its place; its trials stay readable.

    Returns:
        The study that was set aside; None where it is of this very space.
    """
    with Study(path) as study:
        if study.facts.get(SPACE) in (None, json.loads(json.dumps(space))):
            return None
    names = (path.with_name(f"{path.stem}-before-{i}{path.suffix}") for i in itertools.count(1))
    study.path = path.rename(next(name for name in names if not name.exists()))
    return study


def take_over(study: Study, problem: Problem, source: Study | None) -> None:
    """Put the trials of another study that are valid here at the beginning of a new one.

    A trial is valid where the configuration is one of this space and means the same formats.

    Raises:
        BadInput: The other study measured another model or other data, or otherwise.
    """
    if source is None:
        return
    for name in _MEASURED_ALIKE:
        if source.facts.get(name) != study.facts[name]:
            what = _difference(name, source.facts.get(name), study.facts[name])
            raise BadInput(f"the trials of the other study do not compare: {what}", found=str(source.path))
    for trial in source.trials:
        if trial.state in ("complete", "infeasible") and _is_valid(trial, source, study, problem):
            judged = problem.judge(trial.metrics)
            if judged.losses is None and judged.violation <= 0:
                continue  # it broke a constraint that is gone: it was never measured
            state: State = "infeasible" if judged.violation > 0 else "complete"
            study.add(replace(trial, number=len(study), state=state, asked_after=GIVEN, _build=None))


def _is_valid(trial: Trial, source: Study, study: Study, problem: Problem) -> bool:
    try:
        problem.tree.check(trial.config)
    except BadInput:
        return False
    there, here = source.facts[SPACE], study.facts[SPACE]
    spelt = [SPACES[space["name"]].explain(space, trial.config) for space in (there, here)]
    return study.find(trial.config) is None and spelt[0] == spelt[1]


def _difference(name: str, there: Any, here: Any) -> str:
    """Where two records differ, in one clause."""
    words = name.replace("_", " ")
    if isinstance(there, Mapping) and isinstance(here, Mapping) and name != SPACE:
        for key in here:
            if there.get(key) != here[key]:
                return f"its {words} '{key}' is {there.get(key)}, not {here[key]}"
    return f"its {words} differs" if name == SPACE else f"its {words} is {there}, not {here}"
