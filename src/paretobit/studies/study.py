"""The study: it remembers every trial, in one file or in memory, and answers questions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

from torch import nn

from paretobit.errors import BadInput, StudyError
from paretobit.models import SavedModel
from paretobit.spaces.knobs import Config
from paretobit.studies.answers import answer
from paretobit.studies.models import TrialModels
from paretobit.studies.packing import Packing, Row, Rows, Words
from paretobit.studies.study_file import StudyFile
from paretobit.studies.trial import State, Trial
from paretobit.wanted.front import Front
from paretobit.wanted.objectives import Constraint, Objective

_MAGIC = b"SQLite format 3\0"


class Study:
    """All trials of one search, in a file or in memory; a trial is taken apart when it is asked for.

    Args:
        path: The SQLite file; None keeps the study in memory.
        read_only: Read an existing file, also where nothing may be written and while a search runs.

    Raises:
        StudyError: The file is locked, corrupt, or not a study.
    """

    def __init__(self, path: str | Path | None = None, *, read_only: bool = False) -> None:
        self.path = None if path is None else Path(path)
        self._build: Callable[[Trial], nn.Module] | None = None
        self._describe: Callable[[SavedModel, Trial], SavedModel] = lambda saved, _: saved
        self.models = TrialModels(None if self.path is None else self.path.parent / "trials")
        self._file = StudyFile(self.path, read_only=read_only)
        self._facts = self._file.facts
        try:
            self._packing = Packing(self._file.words)
        except ValueError as error:
            self._file.close()
            raise StudyError(f"the study {self.path} cannot be used: {error}") from error
        self._rows = self._file.rows
        self._curves = self._file.curves
        self._first: dict[str, int] | None = None  # how a configuration is stored to its first trial
        self._standing = _Standing(())
        self._count()

    @classmethod
    def open(cls, path: str | Path) -> Study:
        """An existing study, to be read: its file, or the run folder that holds it.

        Raises:
            BadInput: There is no study there.
            StudyError: It cannot be read.
        """
        path = Path(path)
        file = path / "study.db" if path.is_dir() else path
        if not file.is_file():
            raise BadInput("no study here", found=str(path), allowed="a run folder or a study.db")
        with file.open("rb") as content:
            if content.read(len(_MAGIC)) not in (b"", _MAGIC):
                raise StudyError(f"{file} is not a database, so not a study")
        return cls(file, read_only=True)

    # Facts about the run

    @property
    def facts(self) -> Mapping[str, Any]:
        """What was recorded about the run: provenance, objectives, baseline, fingerprints."""
        return self._facts

    def record(self, **facts: Any) -> None:
        """Record facts, all or none; JSON-able values."""
        self._file.record(facts)
        self._facts.update(json.loads(json.dumps(facts)))

    def begin(self, facts: Mapping[str, Any], given: Iterable[Trial]) -> None:
        """Hold these facts and these trials and nothing else, all or none; numbers are consecutive."""
        packing, rows, words = Packing(), list[Row](), Words()
        for trial in given:
            row, new = packing.pack(trial)
            packing.learn(new)
            words |= new
            rows.append(row)
        self._file.begin(facts, rows, words)
        self._facts = json.loads(json.dumps(dict(facts)))
        self._packing, self._rows, self._curves, self._first = packing, Rows(), {}, None
        self._rows.extend(rows)
        self._standing = _Standing(())
        self._count()

    def copy_to(self, path: Path) -> None:
        """Write a copy of the whole study to another file, in one step."""
        self._file.copy_to(path)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know: what stays in float, what is not counted, and what the strategy noted."""
        return tuple(self._facts.get("notes", ()))

    @property
    def baseline(self) -> Mapping[str, float]:
        """Metrics of the unmodified float model."""
        return dict(self._facts.get("baseline", {}))

    # Trials

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial, by number."""
        return tuple(self)

    @property
    def given(self) -> tuple[Trial, ...]:
        """The trials that no strategy asked for: they came from another study."""
        return tuple(map(self._trial, self._rows.given))

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Trial]:
        return map(self._trial, range(len(self._rows)))

    def __getitem__(self, number: int) -> Trial:
        if not 0 <= number < len(self._rows):
            allowed = f"0 to {len(self._rows) - 1}" if self._rows else "none yet"
            raise BadInput("no such trial", key="trial", found=number, allowed=allowed)
        return self._trial(number)

    def add(self, trial: Trial, saved: SavedModel | None = None) -> None:
        """Commit a finished trial; numbers are consecutive.

        Args:
            trial: What there is to know of it.
            saved: The model that it trained: kept as long as it is on the front, or answers the study's
                question. It is written before the trial, so that no trial is without its model.

        Raises:
            StudyError: The trial could not be written; those before it are safe.
        """
        if trial.number != len(self._rows):
            raise StudyError(f"trial {trial.number} cannot follow trial {len(self._rows) - 1}")
        if saved is not None:
            self.models.put(trial.number, self._describe(saved, trial))
        row, words = self._packing.pack(trial)
        self._file.add(row, words, trial.curve)
        self._packing.learn(words)
        self._rows.append(row)
        self._counts[row.state] += 1
        if self._first is not None:
            self._first.setdefault(row.config, trial.number)
        if trial.curve:
            self._curves[trial.number] = trial.curve
        if saved is not None:
            self.keep_models_of_the_front()

    def keep_models_of_the_front(self) -> None:
        """Let go of trained models that are no answer any more, and of those that a kill left behind."""
        kept = [trial.number for trial in self.front()]
        with suppress(BadInput):  # no trial answers the question yet
            kept.append(self.best(self._facts.get("best")).number)
        self.models.keep(kept)

    def find(self, config: Config) -> Trial | None:
        """The first trial of a configuration."""
        if self._first is None:
            self._first = {}
            for i, config_text in enumerate(self._rows.configs):
                self._first.setdefault(config_text, i)
        packed = self._packing.find(config)
        number = None if packed is None else self._first.get(packed)
        return None if number is None else self._trial(number)

    def counts(self) -> dict[State, int]:
        """Trials per state."""
        return dict(self._counts)

    # Answers

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What was optimised."""
        return tuple(Objective.from_json(o) for o in self._facts.get("objectives", []))

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What had to hold."""
        return tuple(Constraint.parse(text) for text in self._facts.get("constraints", []))

    def front(self) -> tuple[Trial, ...]:
        """The non-dominated feasible trials, sorted by their losses and then by number."""
        objectives = self.objectives
        if self._standing.objectives != objectives:
            self._standing = _Standing(objectives)
        start = self._standing.seen
        for number, metrics in self._measured(start):
            self._standing.add(number, metrics)
        self._standing.seen = len(self._rows)
        return tuple(map(self._trial, self._standing.numbers()))

    def best(self, question: str | None = None) -> Trial:
        """The trial that answers a question.

        Args:
            question: `min bitops s.t. accuracy >= baseline - 0.01`,
                `max accuracy forgiving 8% per halved bitops`, `knee`, `knee s.t. accuracy >= 0.7`;
                unset: the best first objective, ties broken by the next ones.

        Raises:
            BadInput: The question names an unknown metric, or no trial satisfies it.
        """
        number = answer(self._measured(), self.objectives, self.baseline, question, self._metric)
        return self._trial(number)

    def knee(self) -> Trial:
        """The point of the front beyond which little gain costs much: see `answers.knee_of`.

        Raises:
            BadInput: There is one objective, or no feasible trial.
        """
        return self.best("knee")

    def attach(self, build: Callable[[Trial], nn.Module], describe: Callable[[SavedModel, Trial], SavedModel]) -> None:
        """Let the study's trials make their models.

        Args:
            build: Makes the model of a trial.
            describe: Adds to a model that a trial trained what it takes to load it.
        """
        self._build, self._describe = build, describe

    def close(self) -> None:
        """Close the file; the study stays readable in memory."""
        self._file.close()

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {state}" for state, count in self.counts().items() if count)
        said = "".join(f"\n  {note}" for note in self.notes)
        return f"Study({str(self.path) if self.path else 'in memory'}: {counts or 'no trials'}){said}"

    def _metric(self, name: str) -> str:
        short = self._facts.get("short_names", {})
        known = list(self.baseline)
        if name in short or name in known:
            return str(short.get(name, name))
        raise BadInput("the study has no such metric", key="question", found=name, allowed=[*known, *short])

    def _trial(self, number: int) -> Trial:
        """A trial, taken apart.

        Raises:
            StudyError: Its row is damaged.
        """
        try:
            trial = self._packing.unpack(self._rows[number])
        except (KeyError, ValueError) as error:
            raise StudyError(f"the study {self.path} cannot be used: trial {number} is damaged") from error
        if self._build or number in self._curves:
            return replace(trial, _build=self._build, curve=self._curves.get(number, ()))
        return trial

    def _measured(self, start: int = 0) -> Iterator[tuple[int, dict[str, float]]]:
        """Number and metrics of every complete trial from one on."""
        for number in range(start, len(self._rows)):
            if self._rows.states[number] == "complete":
                yield number, self._packing.metrics(self._rows[number])

    def _count(self) -> None:
        self._counts: dict[State, int] = dict.fromkeys(get_args(State), 0)
        for state in self._rows.states:
            self._counts[state] += 1


class _Standing:
    """The front as it grows, and which trials stand on it.

    Args:
        objectives: What is minimised or maximised.
    """

    def __init__(self, objectives: tuple[Objective, ...]) -> None:
        self.objectives = objectives
        self.seen = 0
        self._front = Front()
        self._trials: dict[tuple[float, ...], list[int]] = {}

    def add(self, number: int, metrics: Mapping[str, float]) -> None:
        """A complete trial, in the order of the numbers."""
        losses = tuple(objective.loss(metrics) for objective in self.objectives)
        if losses and self._front.add(losses):
            self._trials.setdefault(losses, []).append(number)

    def numbers(self) -> list[int]:
        """Numbers of the trials on the front, sorted by their losses and then by number."""
        self._trials = {losses: self._trials[losses] for losses in sorted(set(self._front.points))}
        return [number for numbers in self._trials.values() for number in numbers]
