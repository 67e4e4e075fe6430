"""What a study records about its run, whose study it is, and which trials may move to another."""

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

from paretobit import plugins
from paretobit._version import __version__
from paretobit.errors import BadInput, StudyError
from paretobit.spaces import SPACES
from paretobit.spaces.knobs import Config
from paretobit.strategies.problem import Problem
from paretobit.studies.study import Study
from paretobit.studies.trial import GIVEN, State, Trial
from paretobit.trials.runners import BasicEvaluation
from paretobit.trials.vocabulary import Vocabulary

SPACE = "space"
MEASURED_ALIKE = ("fingerprints", "runners", "eval_mode", "calibration", "pipeline")


def check_or_begin(
    study: Study,
    problem: Problem,
    identity: Mapping[str, Any],
    best: str | None,
    given: Study | None = None,
    extend: bool = False,
) -> None:
    """Record what the run is in a new study; refuse a study that is another search's.

    What is recorded and the trials that are taken over are written at once, all or none.

    Args:
        study: New, or to be resumed.
        problem: What is searched.
        identity: All that a resumed study must share.
        best: The question whose answer is kept.
        given: A study whose trials a new one takes over.
        extend: Where `study` is of another space, keep a copy of it beside it and begin anew with
            its trials that are still valid.

    Raises:
        StudyError: They differ; what differs is named.
        BadInput: The trials to be taken over do not compare; nothing was written.
    """
    identity = json.loads(json.dumps(identity))
    if "created" not in study.facts:
        facts = {**identity, **_described(problem, best)}
        study.begin(facts, [] if given is None else taken_over(given, facts, problem))
    elif extend and study.facts[SPACE] != identity[SPACE]:
        facts = {**identity, **_described(problem, best)}
        trials = taken_over(study, facts, problem)
        if study.path is not None:
            study.copy_to(_free(study.path))
        study.begin(facts, trials)
    else:
        _check(study, identity)


def _check(study: Study, identity: Mapping[str, Any]) -> None:
    for name, value in identity.items():
        if name in study.facts and study.facts[name] != value:
            hint = "; --extend keeps the trials that are still valid" if name == SPACE else ""
            raise StudyError(f"the study is another search's: {_difference(name, study.facts[name], value)}{hint}")


def _described(problem: Problem, best: str | None) -> dict[str, Any]:
    vocabulary = Vocabulary(problem.runners)
    kinds = {metric.name: runner.kind for runner in problem.runners for metric in runner.metrics}
    return {
        "baseline": dict(problem.baseline),
        "best": best,
        "size": str(problem.tree.size),
        "metrics": {
            m.name: {"direction": m.direction, "unit": m.unit, "cheap": m.cheap, "kind": kinds[m.name]}
            for m in vocabulary.metrics.values()
        },
        "short_names": {m.short: m.name for m in vocabulary.metrics.values() if m.short},
        "samples": {r.split: r.samples for r in problem.runners if isinstance(r, BasicEvaluation)},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "plugins": plugins.loaded(),
        "versions": {"paretobit": __version__, "python": platform.python_version(), "torch": torch.__version__},
    }


def _free(path: Path) -> Path:
    """`study-before-1.db`, or the next that is free."""
    names = (path.with_name(f"{path.stem}-before-{i}{path.suffix}") for i in itertools.count(1))
    return next(name for name in names if not name.exists())


def check_comparable(source: Study, facts: Mapping[str, Any], *, model: bool = True) -> None:
    """Refuse the trials of a study that measured another model or other data, or otherwise.

    Args:
        source: The other study.
        facts: The records of this one, those in `MEASURED_ALIKE` at least.
        model: Whether to compare the model; not before it is trained.

    Raises:
        BadInput: They do not compare; what differs is named.
    """
    for name in MEASURED_ALIKE:
        there, here = source.facts.get(name), json.loads(json.dumps(facts[name]))
        if name == "fingerprints" and there is not None and not model:
            there, here = ({k: v for k, v in both.items() if k != "model"} for both in (there, here))
        if there != here:
            what = _difference(name, there, here)
            raise BadInput(f"the trials of the other study do not compare: {what}", found=str(source.path))


def taken_over(source: Study, facts: Mapping[str, Any], problem: Problem) -> list[Trial]:
    """The trials of another study that are valid in a new one.

    A trial is valid where the configuration is one of this space and means the same formats.

    Raises:
        BadInput: The other study measured another model or other data, or otherwise.
    """
    check_comparable(source, facts)
    taken: dict[Config, Trial] = {}
    for trial in source.trials:
        if trial.state not in ("complete", "infeasible") or trial.config in taken:
            continue
        if not _is_valid(trial, source.facts[SPACE], facts[SPACE], problem):
            continue
        judged = problem.judge(trial.metrics)
        if judged.losses is None and judged.violation <= 0:
            continue  # it broke a constraint that is gone: it was never measured
        state: State = "infeasible" if judged.violation > 0 else "complete"
        moved = replace(trial, number=len(taken), state=state, asked_after=GIVEN, _build=None)
        taken[trial.config] = moved
    return list(taken.values())


def _is_valid(trial: Trial, there: Mapping[str, Any], here: Mapping[str, Any], problem: Problem) -> bool:
    try:
        problem.tree.check(trial.config)
    except BadInput:
        return False
    spelt = [SPACES[space["name"]].explain(space, trial.config) for space in (there, here)]
    return spelt[0] == spelt[1]


def _difference(name: str, there: Any, here: Any) -> str:
    """Where two records differ, in one clause."""
    words = name.replace("_", " ")
    if isinstance(there, Mapping) and isinstance(here, Mapping) and name != SPACE:
        for key in here:
            if there.get(key) != here[key]:
                return f"its {words} '{key}' is {there.get(key)}, not {here[key]}"
    return f"its {words} differs" if name == SPACE else f"its {words} is {there}, not {here}"
