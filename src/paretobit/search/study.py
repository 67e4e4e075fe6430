"""The study: one SQLite file that remembers every trial. One writer, one commit per finished trial."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import nn

from paretobit.errors import BadInput, StudyError
from paretobit.search.front import non_dominated
from paretobit.search.knobs import Config
from paretobit.search.objectives import Constraint, Objective, Question
from paretobit.search.trial import State, Trial
from paretobit.storage import replacing

SCHEMA_VERSION = 1
_MAGIC = b"SQLite format 3\0"
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE trials (
    number INTEGER PRIMARY KEY,
    config TEXT NOT NULL,
    state TEXT NOT NULL,
    metrics TEXT NOT NULL,
    error TEXT,
    duplicate_of INTEGER,
    seed INTEGER NOT NULL,
    asked_after INTEGER NOT NULL,
    seconds REAL NOT NULL
);
"""
_ADD = "INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Study:
    """All trials of one search, in a file or in memory.

    Args:
        path: The SQLite file; None keeps the study in memory.
        read_only: Read an existing file, also where nothing may be written and while a search runs.

    Raises:
        StudyError: The file is locked, corrupt, or not a study.
    """

    def __init__(self, path: str | Path | None = None, *, read_only: bool = False) -> None:
        self.path = None if path is None else Path(path)
        self._build: Callable[[Config], nn.Module] | None = None
        with self._explained():
            where = self._uri if read_only else self.path or ":memory:"
            self._db = sqlite3.connect(where, isolation_level=None, timeout=1.0, uri=read_only)
            try:
                trials, facts = self._open(read_only)
                self._trials = [self._read(row) for row in trials]
                self._facts = {name: json.loads(value) for name, value in facts}
                if any(trial.number != i for i, trial in enumerate(self._trials)):
                    raise ValueError("a trial is missing")
            except BaseException:
                self._db.close()
                raise
        self._first: dict[Config, int] = {}
        for trial in self._trials:
            self._first.setdefault(trial.config, trial.number)

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
        with self._explained(), self._transaction():
            for name, value in facts.items():
                self._db.execute("REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))
        self._facts.update(json.loads(json.dumps(facts)))

    def begin(self, facts: Mapping[str, Any], given: Iterable[Trial]) -> None:
        """Hold these facts and these trials and nothing else, all or none; numbers are consecutive."""
        trials = list(given)
        with self._explained(), self._transaction():
            self._db.execute("DELETE FROM trials")
            self._db.execute("DELETE FROM facts")
            described = [(name, json.dumps(value)) for name, value in facts.items()]
            self._db.executemany("INSERT INTO facts VALUES (?, ?)", described)
            self._db.executemany(_ADD, map(self._row, trials))
        self._facts = json.loads(json.dumps(dict(facts)))
        self._trials, self._first = [], {}
        for trial in trials:
            self._keep(trial)

    def copy_to(self, path: Path) -> None:
        """Write a copy of the whole study to another file, in one step."""
        with self._explained(), replacing(path) as temporary, closing(sqlite3.connect(temporary)) as copy:
            self._db.backup(copy)

    @property
    def baseline(self) -> Mapping[str, float]:
        """Metrics of the unmodified float model."""
        return dict(self._facts.get("baseline", {}))

    # Trials

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial, by number."""
        return tuple(self._bound(trial) for trial in self._trials)

    def __len__(self) -> int:
        return len(self._trials)

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.trials)

    def __getitem__(self, number: int) -> Trial:
        if not 0 <= number < len(self._trials):
            allowed = f"0 to {len(self._trials) - 1}" if self._trials else "none yet"
            raise BadInput("no such trial", key="trial", found=number, allowed=allowed)
        return self._bound(self._trials[number])

    def add(self, trial: Trial) -> None:
        """Commit a finished trial; numbers are consecutive.

        Raises:
            StudyError: The trial could not be written; those before it are safe.
        """
        if trial.number != len(self._trials):
            raise StudyError(f"trial {trial.number} cannot follow trial {len(self._trials) - 1}")
        with self._explained():
            self._db.execute(_ADD, self._row(trial))
        self._keep(trial)

    def find(self, config: Config) -> Trial | None:
        """The first trial of a configuration."""
        number = self._first.get(config)
        return None if number is None else self._trials[number]

    def counts(self) -> dict[State, int]:
        """Trials per state."""
        counts: dict[State, int] = {"complete": 0, "infeasible": 0, "duplicate": 0, "failed": 0}
        for trial in self._trials:
            counts[trial.state] += 1
        return counts

    # Answers

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What was optimised."""
        return tuple(_objective(o) for o in self._facts.get("objectives", []))

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What had to hold."""
        return tuple(Constraint.parse(text) for text in self._facts.get("constraints", []))

    def front(self) -> tuple[Trial, ...]:
        """The non-dominated feasible trials, sorted by the first objective's loss."""
        objectives = self.objectives
        complete = [trial for trial in self.trials if trial.state == "complete"]
        return tuple(non_dominated(complete, lambda t: [o.loss(t.metrics) for o in objectives]))

    def best(self, question: str | None = None) -> Trial:
        """The trial that answers a question.

        Args:
            question: `min bitops s.t. accuracy >= baseline - 0.01`; unset: the best first
                objective, ties broken by the next ones.

        Raises:
            BadInput: The question names an unknown metric, or no trial satisfies it.
        """
        complete = [trial for trial in self.trials if trial.state == "complete"]
        objectives, constraints = self.objectives, tuple[Constraint, ...]()
        if question is not None:
            asked = Question.parse(question).resolved(self._metric)
            others = tuple(o for o in objectives if o != asked.objective)
            objectives, constraints = (asked.objective, *others), asked.constraints
        fitting = [t for t in complete if all(c.holds(t.metrics, self.baseline) for c in constraints)]
        if not fitting:
            asked_for = question or "any feasible trial"
            raise BadInput(
                f"no trial satisfies it ({len(complete)} feasible trials)", key="best", found=asked_for
            )
        return min(fitting, key=lambda t: (*[o.loss(t.metrics) for o in objectives], t.number))

    def attach(self, build: Callable[[Config], nn.Module]) -> None:
        """Let the study's trials make their models."""
        self._build = build

    def close(self) -> None:
        """Close the file; the study stays readable in memory."""
        self._db.close()

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {state}" for state, count in self.counts().items() if count)
        return f"Study({str(self.path) if self.path else 'in memory'}: {counts or 'no trials'})"

    def _metric(self, name: str) -> str:
        short = self._facts.get("short_names", {})
        known = list(self.baseline)
        if name in short or name in known:
            return str(short.get(name, name))
        raise BadInput("the study has no such metric", key="question", found=name, allowed=[*known, *short])

    def _bound(self, trial: Trial) -> Trial:
        return replace(trial, _build=self._build) if self._build else trial

    def _keep(self, trial: Trial) -> None:
        self._trials.append(trial)
        self._first.setdefault(trial.config, trial.number)

    @property
    def _uri(self) -> str:
        """The file for reading. Without a log beside it nobody writes to it, and reading leaves no trace."""
        assert self.path is not None
        log = self.path.with_name(f"{self.path.name}-wal")
        return f"{self.path.absolute().as_uri()}?{'mode=ro' if log.exists() else 'immutable=1'}"

    def _open(self, read_only: bool) -> tuple[Iterable[tuple[Any, ...]], Iterable[tuple[str, str]]]:
        """The rows of trials and facts; none in a file that nothing was written to yet."""
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not {"facts", "trials"} <= tables:
            raise StudyError(f"{self.path} is a database, but not a study")
        if tables and version != SCHEMA_VERSION:
            raise StudyError(
                f"{self.path} is not a study of this version (schema {version}, not {SCHEMA_VERSION})"
            )
        if read_only and not tables:
            return (), ()
        if not read_only:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
        if not tables:
            with self._transaction():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return (
            self._db.execute("SELECT * FROM trials ORDER BY number"),
            self._db.execute("SELECT name, value FROM facts"),
        )

    @staticmethod
    def _row(trial: Trial) -> tuple[Any, ...]:
        return (
            trial.number,
            trial.config.to_json(),
            trial.state,
            json.dumps(dict(trial.metrics)),
            trial.error,
            trial.duplicate_of,
            trial.seed,
            trial.asked_after,
            trial.seconds,
        )

    @staticmethod
    def _read(row: tuple[Any, ...]) -> Trial:
        number, config, state, metrics, error, duplicate_of, seed, asked_after, seconds = row
        return Trial(
            number,
            Config.from_json(config),
            state,
            json.loads(metrics),
            error,
            duplicate_of,
            seed,
            asked_after,
            seconds,
        )

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    def _explained(self) -> _Explained:
        return _Explained(self.path)


class _Transaction:
    """All statements of the block, or none."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


class _Explained:
    """Turns SQLite's errors, and contents that cannot be read, into one that names the file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, sqlite3.Error | ValueError):
            raise StudyError(f"the study {self._path} cannot be used: {error}") from error


def describe_objective(objective: Objective) -> dict[str, Any]:
    """An objective as JSON."""
    return {"terms": [list(term) for term in objective.terms], "direction": objective.direction}


def _objective(described: Mapping[str, Any]) -> Objective:
    return Objective(tuple((str(m), float(s)) for m, s in described["terms"]), described["direction"])
