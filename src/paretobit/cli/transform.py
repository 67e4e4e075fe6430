"""`paretobit transform`."""

from __future__ import annotations

from typing import Any

from paretobit.cli.console import (
    Accelerator,
    BatchSize,
    Config,
    Dataset,
    Json,
    LearningRate,
    Load,
    LoadType,
    MaxEpochs,
    Model,
    Out,
    Project,
    Quiet,
    Seed,
    Set,
    Task,
    document_from,
    guarded,
    output,
    print_json,
    print_table,
    run_flags,
)


@guarded
def transform(
    model: Model = None,
    dataset: Dataset = None,
    config: Config = None,
    load: Load = None,
    load_type: LoadType = None,
    max_epochs: MaxEpochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    project: Project = None,
    task: Task = None,
    accelerator: Accelerator = None,
    seed: Seed = None,
    out: Out = None,
    set_: Set = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Run the [passes] of a file over a model: tables before and after; best/ in the folder gets the result."""
    flags = run_flags(
        model, dataset, load, load_type, project, task, accelerator, max_epochs, batch_size, learning_rate, seed
    )
    document = document_from(config, flags, set_, quiet or json_)

    from paretobit.report import comparison_rows, quantization_rows
    from paretobit.workflow.run_folder import RunFolder
    from paretobit.workflow.settings import Settings
    from paretobit.workflow.transform import transform as run

    settings = Settings.from_document(document)
    name = settings.project or f"{settings.model.name}-transformed"
    folder = RunFolder.choose(out, name)
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
    if json_:
        layers = comparison_rows(done.layers)
        print_json(
            {
                "folder": str(folder.path),
                "sides": rows,
                "types": quantization_rows(done.summary),
                "layers": layers,
            }
        )
    elif not quiet:
        print_table(quantization_rows(done.summary))
        print_table(comparison_rows(done.layers))
        print_table(rows)
        output().print(f"saved in {folder.path}")
