"""`paretobit transform`."""

from typing import Any

from paretobit.cli.console import guarded, output, print_json, print_notes, print_table
from paretobit.cli.options import RunOptions, with_options


@with_options(RunOptions)
@guarded
def transform(options: RunOptions) -> None:
    """Run the [passes] of a file over a model: tables before and after; best/ in the folder gets the result."""
    document = options.document()

    from paretobit.report import accumulator_rows, comparison_rows, quantization_rows
    from paretobit.workflow.run_folder import RunFolder
    from paretobit.workflow.settings import Settings
    from paretobit.workflow.transform import transform as run

    settings = Settings.from_document(document)
    name = settings.project or f"{settings.model.name}-transformed"
    folder = RunFolder.choose(options.out, name)
    with document.placing():
        done = run(settings, document, folder)
    rows: list[dict[str, Any]] = [
        {
            "": label,
            "total_flops": side.costs.total("forward_flops"),
            "total_bitops": side.costs.total("forward_bitops"),
            **{f"{split} accuracy": result.accuracy for split, result in side.results.items()},
            **{f"{split} loss": result.loss for split, result in side.results.items()},
        }
        for label, side in (("before", done.before), ("after", done.after))
    ]
    if options.json_:
        print_json(
            {
                "folder": str(folder.path),
                "sides": rows,
                "types": quantization_rows(done.summary),
                "layers": comparison_rows(done.layers),
                "accumulators": accumulator_rows(done.accumulators),
                "passes": done.done,
                "notes": done.notes,
            }
        )
    elif not options.quiet:
        print_table(quantization_rows(done.summary))
        print_table(comparison_rows(done.layers))
        if done.accumulators:
            print_table(accumulator_rows(done.accumulators))
        print_table(rows)
        print_notes(done.notes)
        output().print(f"saved in {folder.path}")
