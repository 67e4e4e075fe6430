"""What every command shares: output, errors as exit codes, documents from files and flags, progress."""

from __future__ import annotations

import functools
import inspect
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer

from paretobit.document import Document
from paretobit.errors import BadInput, ParetoBitError

if TYPE_CHECKING:
    import rich.progress
    from rich.console import Console

    from paretobit.session.loop import Progress
    from paretobit.studies.study import Study
    from paretobit.training import Epoch

INTERRUPTED = 130
_WIDTH_OF_FILES = 200
_REFRESH = 0.1
_MANY_KNOBS = 6
_ALWAYS_SHOWN = {"accuracy", "loss", "model_size"}

P = ParamSpec("P")
T = TypeVar("T")
Plugin = Annotated[
    list[str] | None, typer.Option("--plugin", help="File or module that registers what you add. Repeatable.")
]


def guarded(command: Callable[P, None]) -> Callable[..., None]:
    """Turn errors raised on purpose into one message and an exit code, and take `--plugin` before all else."""

    @functools.wraps(command)
    def run(*args: Any, plugin: Sequence[str] | None = None, **kwargs: Any) -> None:
        from paretobit import plugins

        try:
            plugins.load(plugin or ())
            command(*args, **kwargs)
        except ParetoBitError as error:
            given = [*kwargs.values(), *(value for options in args for value in vars(options).values())]
            said = f"{error}{_not_imported(given) if isinstance(error, BadInput) else ''}"
            errors().print(f"[bold red]error:[/] {escaped(said)}", soft_wrap=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            errors().print("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise typer.Exit(1) from None

    own = inspect.signature(command, eval_str=True)
    keyword = inspect.Parameter("plugin", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Plugin)
    run.__signature__ = own.replace(parameters=[*own.parameters.values(), keyword])  # type: ignore[attr-defined]
    run.__annotations__ = {**command.__annotations__, "plugin": Plugin}
    return run


def _not_imported(arguments: Iterable[Any]) -> str:
    """What a run folder among the arguments of a command says of plug-ins that were not imported."""
    from paretobit.plugins import absent

    given = [one for value in arguments for one in (value if isinstance(value, list) else [value])]
    paths = [Path(one) for one in given if isinstance(one, str | Path)]
    for config in (folder / "config.toml" for path in paths for folder in (path, *path.parents)):
        if config.is_file():
            names = absent(Document.read(config).get("plugins", ()))
            options = " ".join(f"--plugin {name}" for name in names)
            return f"; it was made with plug-ins, which are not imported unasked: {options}" if names else ""
    return ""


def output() -> Console:
    """Standard output."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_FILES)


def errors() -> Console:
    """Standard error: messages and progress."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def escaped(text: str) -> str:
    """Text with rich's markup made harmless."""
    from rich.markup import escape

    return escape(text)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, default=str))


def print_table(rows: Sequence[Mapping[str, Any]], title: str = "", only: Sequence[str] | None = None) -> None:
    """Rows as a table, numbers to the right."""
    from rich import box
    from rich.table import Table

    from paretobit.report import cell, columns

    names = list(only) if only is not None else columns([dict(row) for row in rows])
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        numeric = any(isinstance(row.get(name), int | float) for row in rows)
        table.add_column(escaped(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escaped(cell(row.get(name))) for name in names))
    output().print(table)


def document_from(
    config: Path | None,
    flags: Mapping[str, Any],
    overrides: Sequence[str] | None,
    quiet: bool = False,
    run: Path | None = None,
) -> Document:
    """The document of a command: the file, then flags that were given, then `--set`.

    The reports' keys and names are accepted in all three.

    Args:
        config: TOML file, if any.
        flags: Dotted key to value; None means the flag was not given.
        overrides: `key.path=value`, last word.
        quiet: Whether to keep to oneself what was set aside.
        run: Run folder whose own file it is: its plug-ins must be those that were recorded.
    """
    from paretobit.compat import modernise, translated
    from paretobit.workflow.settings import expand

    document = Document.read(config) if config is not None else Document()
    notes = modernise(document)
    expand(document)
    for key, value in flags.items():
        if value is not None:
            document.override(key.split("."), value)
    for assignment in overrides or ():
        key, equals, value = assignment.partition("=")
        document.set(translated(key.strip()) + equals + value)
    notes += modernise(document)
    expand(document)
    _import_plugins(document, run)
    for note in [] if quiet else notes:
        errors().print(f"[yellow]note:[/] {escaped(note)}")
    return document


def _import_plugins(document: Document, run: Path | None) -> None:
    """Import the plug-ins that a document names; those of a run folder only where they are as recorded."""
    from paretobit import plugins

    recorded = None
    if run is not None:
        from paretobit.studies.study import Study

        with suppress(BadInput), Study.open(run) as study:
            recorded = {one["name"]: one["sha256"] for one in study.facts.get("plugins", ())}
        recorded = {**(recorded or {}), **{one["name"]: one["sha256"] for one in plugins.loaded()}}
        inside = [name for name in recorded if Path(name).is_relative_to(run.resolve())]
        for name in set(inside) - {one["name"] for one in plugins.loaded()}:
            problem = "a file of a run folder is not executed unless it is named: add --plugin"
            raise BadInput(problem, key="plugins", found=name)
    folder = None if document.source is None else Path(document.source).parent
    with document.placing():
        names = plugins.load(document.data.get("plugins", ()), folder, recorded)
    names += [one["name"] for one in plugins.loaded()]
    if names:
        document.data["plugins"] = list(dict.fromkeys(names))


def require_space(document: Document) -> None:
    """Refuse a document that says nothing about what may vary."""
    if not document.get("search.space"):
        raise BadInput("nothing may vary: there is no [search.space]", source=document.source, key="search.space")


class ProgressLines:
    """One line for training and one for searching, each from its first event on."""

    def __init__(self, bar: rich.progress.Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._shown = 0.0

    def on_epoch(self, epoch: Epoch, total: int) -> None:
        """Epoch, validation loss and accuracy."""
        shown = epoch.val_loss if epoch.val_loss is not None else epoch.train_loss
        text = f"epoch {epoch.number}/{total}  val loss {shown:.4f}"
        if epoch.val_accuracy is not None:
            text += f"  val accuracy {epoch.val_accuracy:.4f}"
        self._update("training", epoch.number, total, text)

    def on_trial(self, progress: Progress) -> None:
        """Rate, time left, best so far, size of the front; ten times a second at most."""
        now = time.monotonic()
        if now - self._shown < _REFRESH and progress.done < progress.total:
            return
        self._shown = now
        best = "-" if progress.best is None else f"{progress.best:.5g}"
        left = (progress.total - progress.done) / progress.rate if progress.rate else 0.0
        text = (
            f"{progress.done}/{progress.total} trials  {progress.rate:.1f}/s  {left:.0f} s left  "
            f"best {best}  front {progress.front_size}"
        )
        self._update("searching", progress.done, progress.total, text)

    def on_judged(self, done: int, total: int) -> None:
        """Points of the front judged on the test split."""
        self._update("judging", done, total, f"{done}/{total} points judged on the test split")

    def _update(self, name: str, done: int, total: int, text: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total)
        self._bar.update(self._tasks[name], completed=done, total=total, description=text)


@contextmanager
def progress_lines(quiet: bool) -> Iterator[ProgressLines]:
    """Progress on standard error while the block runs."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=errors(), disable=quiet) as bar:
        yield ProgressLines(bar)


def print_front(study: Study) -> None:
    """The front, the baseline above it."""
    from paretobit.report import baseline_row, front_rows

    rows = [baseline_row(study), *front_rows(study, shown=True)]
    knobs = list(study.trials[0].config) if len(study) else []
    shown = knobs if len(knobs) <= _MANY_KNOBS else []
    metrics = [name for name in study.baseline if name in _shown_metrics(study)]
    tests = [key for key in rows[-1] if key.startswith("test_")]
    only = ["number", *metrics, *tests, *shown]
    print_table(rows, f"Front: {len(rows) - 1} of {len(study)} trials", only)


def print_notes(study: Study) -> None:
    """What a reader of its numbers should know."""
    for note in study.facts.get("notes", []):
        output().print(f"[yellow]note:[/] {escaped(note)}")


def _shown_metrics(study: Study) -> set[str]:
    """Objectives, constrained metrics, and those of the runners one always wants to see."""
    named = {name for objective in study.objectives for name in objective.metrics}
    named |= {constraint.metric for constraint in study.constraints}
    return named | _ALWAYS_SHOWN
