"""`paretobit sensitivity`: which layer is fragile."""

from dataclasses import asdict
from typing import Annotated

import typer

from paretobit.cli.console import escaped, guarded, output, print_json, print_notes, print_table
from paretobit.cli.options import ModelOptions, with_options


@with_options(ModelOptions)
@guarded
def sensitivity(
    options: ModelOptions,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="Format to try, 'scaled_integer(width=8, per=channel)'. Repeatable. Default: that with 8 and "
            "with 4 bits, fp8_e4m3 and mxfp4.",
        ),
    ] = None,
    slots: Annotated[
        list[str] | None, typer.Option("--slots", help="What to quantise at a time: weight, data or both. Repeatable.")
    ] = None,
    loss: Annotated[str, typer.Option("--loss", help="cross_entropy, or kl to the float output.")] = ("cross_entropy"),
    split: Annotated[str, typer.Option("--split", help="Where the rows come from.")] = "val",
    rows: Annotated[int, typer.Option("--rows", help="Rows to run, at most.")] = 256,
) -> None:
    """Each layer quantised alone: SQNR at its output and at the model's, change of loss; fragile ones first."""
    document = options.document()

    from paretobit.errors import under
    from paretobit.formats import parse
    from paretobit.report import cell
    from paretobit.report.sensitivity import sensitivity_rows, skipped_rows
    from paretobit.strategies.insight.sensitivity import DEFAULT_FORMATS
    from paretobit.workflow.sensitivity import fragile_layers
    from paretobit.workflow.settings import Settings

    with under("--format"):
        candidates = [parse(text) for text in formats] if formats else DEFAULT_FORMATS
    settings = Settings.from_document(document)
    with document.placing():
        found = fragile_layers(
            settings,
            saved=options.saved,
            other_data=options.other_data,
            formats=candidates,
            slots=slots or ["both"],
            loss=loss,
            split=split,
            rows=rows,
        )
    if options.json_:
        print_json(asdict(found))
    elif not options.quiet:
        print_table(sensitivity_rows(found), f"{found.samples} rows of {split}; float {loss} {cell(found.loss)}")
        print_notes(found.notes)
        if found.skipped:
            output().print("[yellow]not measured:[/]")
            for row in skipped_rows(found):
                output().print(f"  {escaped(row['Reason'])}: {escaped(row['Not measured'])}")
