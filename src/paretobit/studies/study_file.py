"""The file of a study: SQLite, one writer, one commit per finished trial."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from paretobit.errors import StudyError
from paretobit.storage import replacing
from paretobit.studies.packing import Row, Rows, Words, written
from paretobit.training import Epoch

SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE words (number INTEGER PRIMARY KEY, word TEXT NOT NULL);
CREATE TABLE trials (
    number INTEGER PRIMARY KEY,
    config TEXT NOT NULL,
    state TEXT NOT NULL,
    names INTEGER NOT NULL,
    metrics TEXT NOT NULL,
    error TEXT,
    duplicate_of INTEGER,
    seed INTEGER NOT NULL,
    asked_after INTEGER NOT NULL,
    seconds REAL NOT NULL
);
"""
_CURVES = "CREATE TABLE IF NOT EXISTS curves (number INTEGER PRIMARY KEY, curve TEXT NOT NULL)"
_ADD_CURVE = "INSERT INTO curves VALUES (?, ?)"
_ADD = "INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ADD_WORD = "INSERT INTO words VALUES (?, ?)"
_SPOILT = """
SELECT number FROM trials WHERE NOT json_valid(metrics)
OR state NOT IN ('complete', 'infeasible', 'duplicate', 'stopped', 'failed') LIMIT 1
"""
_CONFIG = re.compile("[0-9 ]*")
_CHUNK = 1024


class StudyFile:
    """What a study keeps in its file, or in memory.

    Args:
        path: The SQLite file; None keeps everything in memory.
        read_only: Read an existing file, also where nothing may be written and while a search runs.

    Attributes:
        facts: As stored when it was opened.
        words: Likewise.
        rows: Likewise; those of trials 0, 1, 2 …
        curves: Likewise, of the trials that trained, by number.

    Raises:
        StudyError: The file is locked, corrupt, or not a study.
    """

    def __init__(self, path: Path | None, *, read_only: bool) -> None:
        self._path = path
        with self._explained():
            where = self._uri if read_only else path or ":memory:"
            self._db = sqlite3.connect(where, isolation_level=None, timeout=1.0, uri=read_only)
            try:
                self.facts: dict[str, Any] = {}
                self.words: list[tuple[int, str]] = []
                self.rows = Rows()
                self.curves: dict[int, tuple[Epoch, ...]] = {}
                if self._open(read_only):
                    self._read()
            except BaseException:
                self._db.close()
                raise

    def record(self, facts: Mapping[str, Any]) -> None:
        """Write facts, all or none."""
        with self._explained(), _Transaction(self._db):
            for name, value in facts.items():
                self._db.execute("REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def begin(self, facts: Mapping[str, Any], rows: Sequence[Row], words: Words) -> None:
        """Hold these facts and rows and nothing else, all or none."""
        with self._explained(), _Transaction(self._db):
            self._db.execute(_CURVES)
            for table in ("trials", "words", "facts", "curves"):
                self._db.execute(f"DELETE FROM {table}")
            described = [(name, json.dumps(value)) for name, value in facts.items()]
            self._db.executemany("INSERT INTO facts VALUES (?, ?)", described)
            self._add_words(words)
            self._db.executemany(_ADD, rows)

    def add(self, row: Row, words: Words, curve: Sequence[Epoch] = ()) -> None:
        """Commit a row, the words that are new in it, and the epochs that it trained.

        Raises:
            StudyError: It could not be written; those before it are safe.
        """
        with self._explained():
            if not words and not curve:
                self._db.execute(_ADD, row)
                return
            with _Transaction(self._db):
                self._add_words(words)
                self._db.execute(_ADD, row)
                if curve:
                    self._db.execute(_CURVES)
                    self._db.execute(_ADD_CURVE, (row.number, json.dumps([asdict(epoch) for epoch in curve])))

    def copy_to(self, path: Path) -> None:
        """Write a copy of everything to another file, in one step."""
        with self._explained(), replacing(path) as temporary, closing(sqlite3.connect(temporary)) as copy:
            self._db.backup(copy)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _add_words(self, words: Words) -> None:
        self._db.executemany(_ADD_WORD, [(number, written(key)) for key, number in words.items()])

    @property
    def _uri(self) -> str:
        """The file for reading. Without a log beside it nobody writes to it, and reading leaves no trace."""
        assert self._path is not None
        log = self._path.with_name(f"{self._path.name}-wal")
        return f"{self._path.absolute().as_uri()}?{'mode=ro' if log.exists() else 'immutable=1'}"

    def _open(self, read_only: bool) -> bool:
        """Whether there is anything to read; a file that nothing was written to yet gets its tables."""
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and not {"facts", "trials"} <= tables:
            raise StudyError(f"{self._path} is a database, but not a study")
        if tables and version != SCHEMA_VERSION:
            raise StudyError(f"{self._path} is not a study of this version (schema {version}, not {SCHEMA_VERSION})")
        if read_only:
            return bool(tables)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if not tables:
            with _Transaction(self._db):
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        return bool(tables)

    def _read(self) -> None:
        """Everything as stored, of one moment; what a trial means is read when it is asked for."""
        self._db.execute("BEGIN")
        facts = self._db.execute("SELECT name, value FROM facts").fetchall()
        self.words = self._db.execute("SELECT number, word FROM words ORDER BY number").fetchall()
        trials = self._db.execute("SELECT * FROM trials ORDER BY number")
        last = -1
        while chunk := trials.fetchmany(_CHUNK):
            self.rows.extend(chunk)
            last = chunk[-1][0]
        spoilt = self._db.execute(_SPOILT).fetchone()
        if self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'curves'").fetchone():
            for number, text in self._db.execute("SELECT number, curve FROM curves"):
                self.curves[number] = tuple(Epoch(**epoch) for epoch in json.loads(text))
        self._db.execute("COMMIT")
        self.facts = {name: json.loads(value) for name, value in facts}
        if spoilt is not None or not all(map(_CONFIG.fullmatch, self.rows.configs)):
            raise ValueError("a trial is damaged")
        if last != len(self.rows) - 1:
            raise ValueError("a trial is missing")

    def _explained(self) -> _Explained:
        return _Explained(self._path)


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
