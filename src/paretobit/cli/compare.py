"""`paretobit compare`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paretobit.cli.console import (
    document_from,
    errors,
    escaped,
    guarded,
    output,
    print_json,
    print_notes,
    print_table,
    require_space,
)
from paretobit.cli.options import Json, Quiet, Set

if TYPE_CHECKING:
    from paretobit.comparing.comparison import Comparison
    from paretobit.workflow.contestants import Asking


@guarded
def compare(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="TABLE_OR_CONFIG...", help="Tables, which are replayed; TOML files, which run."),
    ],
    strategies: Annotated[
        str | None, typer.Option("--strategies", help="tpe,guided,tpe:n_startup_trials=20 … Default: all samplers.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="How many, from 0 on.")] = 20,
    trials: Annotated[int, typer.Option("--trials", help="Unique expensive evaluations of each.")] = 200,
    within: Annotated[
        float | None, typer.Option("--within", help="What counts as close. Default: the rows' noise.")
    ] = None,
    maximize: Annotated[
        list[str] | None, typer.Option("--maximize", help="Other objectives than the table's. Repeatable.")
    ] = None,
    minimize: Annotated[list[str] | None, typer.Option("--minimize", help="The same. Repeatable.")] = None,
    subject_to: Annotated[
        list[str] | None, typer.Option("--subject-to", help="Other constraints than the table's. Repeatable.")
    ] = None,
    charge_evidence: Annotated[
        bool, typer.Option("--charge-evidence", help="Count the time of evidence as evaluations.")
    ] = False,
    workers: Annotated[int, typer.Option("--workers", "-w", help="Processes that replay tables.")] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for comparison.md, its pictures and numbers.")
    ] = None,
    picture_format: Annotated[str, typer.Option("--format", help="png or svg.")] = "png",
    set_: Set = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Compare strategies over many seeds; random and shuffled brute force always take part."""
    from paretobit.report.comparison import comparison_table, reading
    from paretobit.workflow.compare import write_comparisons
    from paretobit.workflow.contestants import Asking

    asked = None if strategies is None else [part for part in strategies.split(",") if part.strip()]
    asking = Asking(asked, seeds, trials, within, workers, charge_evidence)
    question = {"maximize": maximize, "minimize": minimize, "subject_to": subject_to}
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        done = [_one(path, asking, question, folder, set_, quiet or json_) for path in sources]
    written = [] if out is None else write_comparisons(done, out, picture_format)
    if json_:
        print_json([{**one.to_json(), "reading": reading(one)} for one in done])
    elif not quiet:
        for one in done:
            print_table(comparison_table(one), f"{one.name}: {', '.join(one.objectives)}")
            output().print(escaped(reading(one)), soft_wrap=True)
            print_notes(one.notes)
            for label, reason in one.left_out.items():
                errors().print(f"[yellow]left out:[/] {label}: {escaped(reason)}", soft_wrap=True)
        if written:
            output().print(f"saved in {out}: {', '.join(path.name for path in written)}")


def _one(
    path: Path,
    asking: Asking,
    question: dict[str, list[str] | None],
    folder: Path,
    overrides: list[str] | None,
    silent: bool,
) -> Comparison:
    """Compare on one table or one configuration."""
    from paretobit.workflow.compare import asked_of, compare_live, compare_on_table
    from paretobit.workflow.run_folder import RunFolder
    from paretobit.workflow.settings import Settings

    with _progress(silent) as on_play:
        if path.suffix != ".toml":
            table, name, wanted = asked_of(path, **question)
            return compare_on_table(table, asking, name=name, wanted=wanted, on_play=on_play)
        flags = {f"search.{key}": value for key, value in question.items()}
        document = document_from(path, flags, overrides, silent)
        require_space(document)
        settings = Settings.from_document(document)
        with document.placing():
            run = RunFolder(folder / path.stem)
            return compare_live(settings, document, run, asking, name=path.stem, on_play=on_play)


@contextmanager
def _progress(silent: bool) -> Iterator[Callable[[str, int, int], None]]:
    """One line on standard error: the strategy, and plays done."""
    from rich.progress import Progress

    with Progress(console=errors(), disable=silent) as bar:
        task = bar.add_task("comparing", total=None)
        yield lambda label, done, total: bar.update(task, description=label, completed=done, total=total)
