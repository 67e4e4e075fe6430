"""A complete table of a space: every configuration with every metric, in one file that needs no model.

The file is a numpy archive without pickles: `about` holds JSON as UTF-8 bytes; `states` one code for every
configuration; `metric.NAME` one float64 for every configuration, NaN where it was not measured. The
configurations themselves are not stored: number `i` is `Tree.at(i)` of the tree in `about`.
"""

from __future__ import annotations

import json
import math
import statistics
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paretobit.errors import BadInput, StudyError
from paretobit.spaces.knobs import Config, Knob, Option, Tree, plain_knobs
from paretobit.storage import replacing
from paretobit.strategies.insight.insight import StoredInsight
from paretobit.strategies.problem import Problem
from paretobit.studies.study import Study
from paretobit.studies.trial import State
from paretobit.trials.outcome import Outcome
from paretobit.trials.vocabulary import Vocabulary
from paretobit.wanted.metric import Metric
from paretobit.wanted.objectives import Constraint, Metrics, Objective
from paretobit.wanted.wanted import Wanted

FORMAT = 1
TEST = "test_"
"""Before the name of a metric that was measured on the test split: it judges, and is told to nobody."""
_STATES: tuple[State, ...] = ("complete", "infeasible", "failed")
_METRIC = "metric."
_FACTS = (
    "baseline", "objectives", "constraints", "metrics", "short_names", "samples", "seed", "space",
    "fingerprints", "runners", "eval_mode", "calibration", "versions", "created",
)  # fmt: skip

Column = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Every configuration of a space, measured.

    Attributes:
        tree: The knobs.
        states: Code of every configuration's state: 0 complete, 1 infeasible, 2 failed.
        columns: Metric to its value for every configuration; NaN where it was not measured.
        about: Facts of the study it was made from: objectives, constraints, baseline, metrics, samples,
            versions and fingerprints; `evidence` for strategies that ask for it (None: `evidence_absent`
            says why); `seconds`, the median time of one evaluation.
    """

    tree: Tree
    states: NDArray[np.uint8]
    columns: Mapping[str, Column]
    about: Mapping[str, Any]

    @classmethod
    def from_study(
        cls,
        study: Study,
        tree: Tree | None = None,
        *,
        evidence: Mapping[str, Any] | None = None,
        evidence_absent: str = "none was stored",
    ) -> Table:
        """The table of a study that holds every configuration of its space.

        Args:
            study: Finished.
            tree: Its knobs; unset: those that the study recorded as `knobs`.
            evidence: What `store` gave, with `seconds`.
            evidence_absent: Why there is none.

        Raises:
            BadInput: Configurations are missing, or the tree is another one's.
        """
        tree = _tree_of(study, tree)
        first: dict[int, int] = {}
        for trial in study.trials:
            if trial.state in _STATES:
                first.setdefault(rank(tree, trial.config), trial.number)
        if len(first) < tree.size:
            raise BadInput(
                f"the study lacks {tree.size - len(first):,} of {tree.size:,} configurations: only a "
                "complete search makes a table",
                found=str(study.path or "a study in memory"),
            )
        trials = [study[first[index]] for index in range(tree.size)]
        names = sorted({name for trial in trials for name in trial.metrics})
        columns = {
            name: np.array([trial.metrics.get(name, math.nan) for trial in trials], dtype=np.float64) for name in names
        }
        states = np.array([_STATES.index(trial.state) for trial in trials], dtype=np.uint8)
        about = {name: study.facts[name] for name in _FACTS if name in study.facts}
        about |= {
            "seconds": statistics.median(trial.seconds for trial in trials),
            "evidence": evidence,
            "evidence_absent": None if evidence is not None else evidence_absent,
        }
        return cls(tree, states, columns, json.loads(json.dumps(about)))

    @classmethod
    def open(cls, path: str | Path) -> Table:
        """A stored table: its file, or the folder that holds `table.npz`.

        Raises:
            BadInput: There is no table there.
            StudyError: It cannot be read, or is of another version.
        """
        path = Path(path)
        file = path / "table.npz" if path.is_dir() else path
        if not file.is_file():
            raise BadInput("no table here", found=str(path), allowed="a table.npz, or the folder that holds it")
        try:
            with np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            page = json.loads(arrays["about"].tobytes())
        except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile, EOFError) as error:
            raise StudyError(f"{file} is not a table: {error}") from error
        if page.get("format") != FORMAT:
            raise StudyError(f"{file} is not a table of this version (format {page.get('format')}, not {FORMAT})")
        tree = tree_from(page["knobs"])
        columns = {name.removeprefix(_METRIC): a for name, a in arrays.items() if name.startswith(_METRIC)}
        for column in (arrays["states"], *columns.values()):
            if column.shape != (tree.size,):
                raise StudyError(f"{file} is not whole: {column.shape} values for {tree.size} configurations")
        about = {name: value for name, value in page.items() if name not in ("format", "knobs")}
        return cls(tree, arrays["states"], columns, about)

    def save(self, path: str | Path) -> None:
        """Write the table in one step."""
        page = {"format": FORMAT, "knobs": plain_knobs(self.tree.knobs), **self.about}
        arrays: dict[str, Any] = {_METRIC + name: column for name, column in self.columns.items()}
        about = np.frombuffer(json.dumps(page).encode(), dtype=np.uint8)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, about=about, states=self.states, **arrays)

    def __len__(self) -> int:
        return self.tree.size

    @property
    def has_evidence(self) -> bool:
        """Whether strategies that ask for evidence can be replayed."""
        return self.about["evidence"] is not None

    @property
    def seconds(self) -> float:
        """Median time of one evaluation."""
        return float(self.about["seconds"])

    @property
    def wanted(self) -> Wanted:
        """The objectives and constraints it was made with."""
        objectives = tuple(map(Objective.from_json, self.about["objectives"]))
        return Wanted(objectives, tuple(map(Constraint.parse, self.about["constraints"])))

    def problem(self, wanted: Wanted | None = None) -> Problem:
        """What strategies are built from.

        Args:
            wanted: Other objectives and constraints than the table's own.

        Raises:
            BadInput: A metric is unknown, or judges on the test split.
        """
        vocabulary = _StoredVocabulary(())
        short = {name: abbreviation for abbreviation, name in self.about["short_names"].items()}
        for name, about in self.about["metrics"].items():
            if not name.startswith(TEST):
                metric = Metric(name, about["direction"], about["unit"], about["cheap"], short.get(name))
                vocabulary.metrics[name] = metric
        asked = (wanted or self.wanted).resolved(vocabulary.resolve)
        baseline = self.about["baseline"]
        for constraint in asked.constraints:
            constraint.bound(baseline)
        insight = None
        if self.has_evidence:
            insight = StoredInsight(self.tree, self.about["evidence"], self.cheap_metrics)
        return Problem(self.tree, asked.objectives, asked.constraints, (), baseline, vocabulary, insight)

    def asking(self, constraints: Sequence[Constraint]) -> Table:
        """The same table with other constraints of its own."""
        resolved = Wanted(self.wanted.objectives, tuple(constraints))
        texts = [str(constraint) for constraint in self.problem(resolved).constraints]
        return replace(self, about={**self.about, "constraints": texts})

    def metrics(self, index: int) -> dict[str, float]:
        """The metrics of configuration number `index` that were measured, those of the test split aside."""
        return self._at(index, self._told)

    def cheap_metrics(self, config: Config) -> Metrics:
        """The metrics of a configuration that need no model."""
        return self._at(rank(self.tree, config), self._cheap)

    def test_metrics(self, config: Config) -> Metrics:
        """The metrics of a configuration on the test split, without the prefix."""
        found = self._at(rank(self.tree, config), [name for name in self.columns if name.startswith(TEST)])
        return {name.removeprefix(TEST): value for name, value in found.items()}

    def outcome(self, config: Config, problem: Problem) -> Outcome:
        """What evaluating a configuration gives: cheap metrics first, as in a search that runs.

        Raises:
            BadInput: The configuration is none of this space, or a metric that is asked for was not measured.
        """
        index = rank(self.tree, config)
        if _STATES[self.states[index]] == "failed":
            return Outcome("failed", {}, "failed when the table was made")
        cheap = self._at(index, self._cheap)
        if problem.violation(cheap) > 0:
            return Outcome("infeasible", cheap)
        metrics = self.metrics(index)
        _check_measured(problem, metrics, index)
        return Outcome("infeasible" if problem.violation(metrics) > 0 else "complete", metrics)

    @cached_property
    def _told(self) -> list[str]:
        return [name for name in self.columns if not name.startswith(TEST)]

    @cached_property
    def _cheap(self) -> list[str]:
        return [name for name in self._told if self.about["metrics"][name]["cheap"]]

    def _at(self, index: int, names: Sequence[str]) -> dict[str, float]:
        found = {name: float(self.columns[name][index]) for name in names}
        return {name: value for name, value in found.items() if not math.isnan(value)}


class _StoredVocabulary(Vocabulary):
    """The metrics of a table, which no runner could add to."""

    def resolve(self, name: str) -> str:
        """The full name of a metric."""
        try:
            return super().resolve(name)
        except BadInput as error:
            raise BadInput("the table has no such metric", key="metric", found=name, allowed=error.allowed) from None


def rank(tree: Tree, config: Mapping[str, Any]) -> int:
    """The number of a configuration: `tree.at(rank(tree, config)) == config`.

    Raises:
        BadInput: The configuration is none of this tree.

    >>> tree = Tree((Knob.of("a", [1, 2]), Knob.of("b", ["x", "y", "z"])))
    >>> rank(tree, tree.at(4))
    4
    """
    seen: set[str] = set()

    def of(knobs: tuple[Knob, ...]) -> int:
        index = 0
        for knob in knobs:
            if knob.name not in config:
                raise BadInput("the configuration lacks a knob", key=knob.name)
            seen.add(knob.name)
            chosen = knob.option(config[knob.name])
            before = 0
            for option in knob.options:
                if option is chosen:
                    break
                before += option.size
            index = index * knob.size + before + of(chosen.knobs)
        return index

    index = of(tree.knobs)
    for name in config:
        if name not in seen:
            raise BadInput("the configuration has an unknown knob", found=name, allowed=sorted(seen))
    return index


def tree_from(plain: Sequence[Any]) -> Tree:
    """The tree of what `plain_knobs` gave."""

    def knobs(entries: Sequence[Any]) -> tuple[Knob, ...]:
        return tuple(Knob(name, tuple(Option(v, knobs(owned)) for v, owned in opts)) for name, opts in entries)

    return Tree(knobs(plain))


def _tree_of(study: Study, tree: Tree | None) -> Tree:
    """The study's knobs, checked against its fingerprint."""
    if tree is None:
        if "knobs" not in study.facts:
            raise BadInput("the study does not say what its knobs are: give its tree", key="tree")
        tree = tree_from(study.facts["knobs"])
    recorded = study.facts.get("space", {}).get("tree")
    if recorded is not None and recorded != tree.fingerprint:
        raise BadInput("the study is of another space", key="tree", found=recorded, allowed=tree.fingerprint)
    return tree


def _check_measured(problem: Problem, metrics: Metrics, index: int) -> None:
    needed = [name for objective in problem.objectives for name in objective.metrics]
    for name in (*needed, *(constraint.metric for constraint in problem.constraints)):
        if name not in metrics:
            raise BadInput(
                f"the table holds no {name} of configuration {index}: it was made with a constraint that "
                "kept it from being measured",
                key="metric",
                found=name,
            )
