"""`paretobit report`: figures and a Markdown page."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from paretobit.cli.console import errors, escaped, guarded, output, print_json, print_table
from paretobit.cli.options import Json, Quiet


@guarded
def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN...", help="Run folders: of searches, or of trainings.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write to. Default: report/ in the run's folder.")
    ] = None,
    picture_format: Annotated[str, typer.Option("--format", help="png or svg.")] = "png",
    figure: Annotated[
        list[str] | None, typer.Option("--figure", help="Draw only this figure (see --list). Repeatable.")
    ] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="The metric to draw.")] = None,
    knob: Annotated[
        str | None,
        typer.Option("--knob", help="The knob to draw against: one, or an ending: weight_width of all layers."),
    ] = None,
    by: Annotated[str | None, typer.Option("--by", help="A second knob: a line, or a row, per value.")] = None,
    trial: Annotated[int | None, typer.Option("--trial", help="The trial whose formats are mapped.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the figures and draw nothing.")] = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Figures of a run, or of several laid over each other, and a page that says what they show."""
    from paretobit.report.figures import Asked
    from paretobit.report.tables import by_reason
    from paretobit.workflow import report as job

    if list_:
        print_json(job.figure_rows()) if json_ else print_table(job.figure_rows())
        return
    asked = Asked(metric, knob, by, trial)
    done = job.report(runs or [], out, picture_format=picture_format, names=figure or [], asked=asked)
    if not quiet:
        for reason, names in by_reason(done.missing).items():
            errors().print(f"[yellow]not drawn:[/] {', '.join(names)}: {escaped(reason)}", soft_wrap=True)
    if json_:
        figures = [asdict(shown) for shown in done.shown]
        print_json({"page": str(done.page), "figures": figures, "not_drawn": dict(done.missing)})
    elif not quiet:
        for shown in done.shown:
            output().print(f"[bold]{shown.name}[/]: {escaped(shown.reading)}", soft_wrap=True)
        output().print(f"saved in {done.page.parent}: {done.page.name} and {len(done.shown)} figures")
