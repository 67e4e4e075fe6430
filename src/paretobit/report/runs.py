"""The runs that a report is about: studies and trainings; those alike but for the seed belong together."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from paretobit.document import Document
from paretobit.errors import BadInput
from paretobit.report.families import families_of
from paretobit.studies.study import Study
from paretobit.studies.trial import Trial
from paretobit.training.history import Epoch

CURVES = "learning_curves.csv"
_ALIKE = ("space", "strategy", "objectives", "constraints", "runners", "eval_mode", "pipeline")
_NAMED = ("model.name", "data.name")
_SEEDED = ("seed", "data.seed", "project")


class KeptStudy(Study):
    """A study that is read, and whose trials are taken apart once."""

    _kept: tuple[Trial, ...] | None = None

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial, by number."""
        if self._kept is None:
            self._kept = super().trials
        return self._kept


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        name: Of its folder.
        study: Its trials; None where the run is a training.
        epochs: How its model was trained, in order; empty where it was not trained here.
        settings: The configuration as resolved, dotted key to value; empty where none was kept.
        path: Its folder; None for a study in memory.
    """

    name: str
    study: Study | None = None
    epochs: tuple[Epoch, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """A run folder, a study.db, or the folder of a training.

        Raises:
            BadInput: It is none of them, or holds nothing yet.
            StudyError: The study cannot be read.
        """
        path = Path(path)
        folder = path if path.is_dir() else path.parent
        config = folder / "config.toml"
        settings = flat(Document.read(config).data) if config.is_file() else {}
        name = folder.resolve().name
        if path.is_dir() and not (path / "study.db").is_file() and (path / CURVES).is_file():
            epochs = read_curves(path / CURVES)
            if not epochs:
                raise BadInput("the training has no epoch yet", found=str(path))
            return cls(name, None, epochs, settings, folder)
        with KeptStudy.open(path) as study:
            if not len(study):
                raise BadInput("the study has no trials yet", found=str(path))
        curves = folder / "float" / CURVES
        return cls(name, study, read_curves(curves) if curves.is_file() else (), settings, folder)

    @cached_property
    def strategy_settings(self) -> dict[str, Any]:
        """The settings of the strategy, dotted key to value."""
        return flat(self.study.facts.get("strategy", {})) if self.study else {}

    @property
    def strategy(self) -> str:
        """The sampler where there is one, else the strategy."""
        said = self.strategy_settings
        return str(said.get("sampler") or said.get("name", "unknown strategy"))

    @property
    def seed(self) -> Any:
        """The seed of the search, or of the training."""
        return self.study.facts.get("seed") if self.study else self.settings.get("seed")

    @cached_property
    def alike(self) -> str:
        """Equal for runs that are the same but for their seeds."""
        if self.study is None:
            said: Any = {key: value for key, value in self.settings.items() if key not in _SEEDED}
        else:
            said = {name: self.study.facts.get(name) for name in _ALIKE}
            said |= {name: self.settings.get(name) for name in _NAMED}
        return json.dumps(said, sort_keys=True)


class Runs(Sequence[Run]):
    """Runs that are shown together.

    Raises:
        BadInput: None at all, searches beside trainings, or searches with different objectives.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = tuple(runs)
        if not self._runs:
            raise BadInput("nothing to report on", key="RUN", allowed="one or more run folders")
        trainings = [run.name for run in self if run.study is None]
        if trainings and len(trainings) < len(self):
            searches = [run.name for run in self if run.study is not None]
            raise BadInput(f"trainings {trainings} and searches {searches} have no figure in common", key="RUN")
        wanted = {run.name: _objectives(run.study) for run in self if run.study is not None}
        for name, objectives in wanted.items():
            first, other = next(iter(wanted.items()))
            if objectives != other:
                raise BadInput(
                    f"the runs optimise different things: '{first}' has {other}", key="RUN",
                    found=f"{name}: {objectives}", allowed="runs with the same objectives",
                )  # fmt: skip

    @classmethod
    def of(cls, study: Study) -> Runs:
        """One study."""
        return cls([Run(study.path.parent.name if study.path else "study", study)])

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, index: Any) -> Any:
        return self._runs[index]

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    @property
    def study(self) -> Study:
        """The study of the first run.

        Raises:
            BadInput: The run is a training.
        """
        found = self._runs[0].study
        if found is None:
            raise BadInput("a training has no trials")
        return found

    @property
    def studies(self) -> dict[str, Study]:
        """Label to study; one that shares its label with others is called by its folder too."""
        named = {}
        for label, group in self.groups.items():
            for run in group:
                if run.study is not None:
                    named[label if len(group) == 1 else f"{label} ({run.name})"] = run.study
        return named

    @cached_property
    def groups(self) -> dict[str, tuple[Run, ...]]:
        """Label to the runs that differ only in their seeds.

        The label is what tells the groups apart: the strategy, else the formats, else the training's
        settings, else the folder.
        """
        alike: dict[str, list[Run]] = {}
        for run in self:
            alike.setdefault(run.alike, []).append(run)
        groups = [split for group in alike.values() for split in _by_model(group)]
        labels = next(found for found in _namings(groups) if len(set(found)) == len(found))
        return {label: tuple(group) for label, group in zip(labels, groups, strict=True)}

    @property
    def measured_alike(self) -> bool:
        """Whether all runs that do not differ in their seed had the same model and data."""
        prints = {(str(r.seed), json.dumps(r.study.facts.get("fingerprints"))) for r in self if r.study}
        return len(prints) == len({seed for seed, _ in prints})


def read_curves(path: Path) -> tuple[Epoch, ...]:
    """The epochs that a training wrote.

    Raises:
        BadInput: The file is not one of ours.
    """
    kinds = get_type_hints(Epoch)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(
                Epoch(**{key: _read(text, kinds[key]) for key, text in row.items()}) for row in csv.DictReader(file)
            )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"not the learning curves of a training: {error}", source=path) from None


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested table with dotted keys.

    >>> flat({"train": {"max_epochs": 3}, "seed": 0})
    {'train.max_epochs': 3, 'seed': 0}
    """
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _read(text: str, kind: Any) -> Any:
    if text == "" and NoneType in get_args(kind):
        return None
    if kind is bool:
        return {"True": True, "False": False}[text]
    return int(text) if kind is int else float(text)


def _objectives(study: Study) -> str:
    return ", ".join(f"{o.direction} {o.label}" for o in study.objectives)


def _by_model(group: list[Run]) -> list[list[Run]]:
    """Runs of one seed on different models or data are not repetitions of each other."""
    prints = [json.dumps(run.study.facts.get("fingerprints") if run.study else None) for run in group]
    seeds = [str(run.seed) for run in group]
    if len(set(zip(seeds, prints, strict=True))) == len(set(seeds)):
        return [group]
    apart: dict[str, list[Run]] = {}
    for run, digest in zip(group, prints, strict=True):
        apart.setdefault(digest, []).append(run)
    return list(apart.values())


def _namings(groups: list[list[Run]]) -> Iterator[list[str]]:
    """Ways to name the groups, best first; the last one always tells them apart."""
    firsts = [group[0] for group in groups]
    if all(run.study is not None for run in firsts):
        yield [_strategy(run, firsts) for run in firsts]
        yield [" + ".join(sorted(families_of(run.study))) for run in firsts if run.study]
    else:
        settings = [{k: v for k, v in run.settings.items() if k not in _SEEDED} for run in firsts]
        yield [_what_differs(own, settings) for own in settings]
    folders = [_common_name(group) for group in groups]
    yield folders
    yield [f"{i}: {folder}" for i, folder in enumerate(folders, 1)]


def _strategy(run: Run, others: Sequence[Run]) -> str:
    """The strategy, and what tells it from others of the same name."""
    namesakes = [other.strategy_settings for other in others if other.strategy == run.strategy]
    more = _what_differs(run.strategy_settings, namesakes)
    return f"{run.strategy}, {more}" if more else run.strategy


def _what_differs(own: Mapping[str, Any], all_of_them: Sequence[Mapping[str, Any]]) -> str:
    """`batch_size = 32, learning_rate = 0.01`: the keys in which some tables differ."""
    keys = dict.fromkeys(key for table in all_of_them for key in table)
    differing = [key for key in keys if len({str(table.get(key)) for table in all_of_them}) > 1]
    return ", ".join(f"{key.rpartition('.')[2]} = {own.get(key, 'not set')}" for key in differing)


def _common_name(group: Sequence[Run]) -> str:
    """`tpe` for `tpe-0`, `tpe-1`, `tpe-2`."""
    if len(group) == 1:
        return group[0].name
    names = [run.name for run in group]
    length = next((i for i, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), 0)
    return names[0][:length].rstrip("-_. 0123456789") or names[0]
