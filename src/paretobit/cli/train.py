"""`paretobit train` and `paretobit test`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from paretobit.cli.console import document_from, guarded, output, print_json, print_table, progress_lines
from paretobit.cli.options import (
    Config,
    Dataset,
    DataToo,
    Json,
    ModelToo,
    Quiet,
    Resume,
    RunOptions,
    Set,
    with_run_options,
)
from paretobit.errors import BadInput


@with_run_options
@guarded
def train(options: RunOptions, resume: Resume = False) -> None:
    """Train a model; the folder it names holds best/, last/ and learning_curves.csv."""
    document = options.document()

    from paretobit.workflow import train as job
    from paretobit.workflow.assemble import build_model
    from paretobit.workflow.run_folder import RunFolder
    from paretobit.workflow.settings import Settings

    settings = Settings.from_document(document)
    name = settings.project or f"{settings.model.name}-{settings.data.name}"
    folder = RunFolder.choose(options.out, name, resume=resume)
    job.check_device(settings, document)
    with document.placing():
        data = job.load_data(settings)
        job.check_trainable(build_model(settings.model, data, settings.seed), data, settings.train)
    folder.create()
    folder.write_config(settings.resolved())
    if not options.silent:
        output().print(data.summary())
    with progress_lines(options.silent) as lines:
        trained = job.train(
            settings,
            folder.path,
            data=data,
            resume=resume,
            on_epoch=lambda epoch: lines.on_epoch(epoch, settings.train.max_epochs),
        )
    rows = [{"split": split, **asdict(result)} for split, result in trained.results.items()]
    best, kept = trained.history.best_epoch, trained.history.kept.number if trained.history.kept else 0
    if options.json_:
        epochs = {"best_epoch": best, "kept_epoch": kept}
        print_json({"folder": str(folder.path), **epochs, "splits": rows})
    elif not options.quiet:
        print_table(rows, f"{settings.model.name}, {settings.train.keep} epoch {kept}")
        output().print(f"saved in {folder.path}")


@guarded
def run_test(
    model: Annotated[
        str | None, typer.Argument(help="A run folder, a saved model, or a model's name with a checkpoint.")
    ] = None,
    dataset: Dataset = None,
    model_too: ModelToo = None,
    data_too: DataToo = None,
    load: Annotated[Path | None, typer.Option("--load", help="Checkpoint with the model's weights.")] = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "test",
    config: Config = None,
    set_: Set = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Figures of a trained model on one split, overall and per class."""
    dataset = data_too or dataset
    given = dataset is not None or config is not None or bool(set_)
    folder = model is not None and Path(model).is_dir()
    flags = {"data.name": dataset, "model.load": None if load is None else str(load)}
    document = document_from(config, {**flags, "model.name": model_too or (None if folder else model)}, set_)

    from paretobit.workflow import train as job
    from paretobit.workflow.opening import named, open_saved
    from paretobit.workflow.settings import Settings

    settings = Settings.from_document(document)
    data_settings = settings.data if given else None
    with document.placing():
        if model is not None and folder:
            if load is not None:
                raise BadInput("the folder has weights of its own", key="--load", found=str(load))
            opened, data = open_saved(model, data_settings, named(settings.model))
        elif settings.model.load is not None:
            opened, data = job.open_checkpoint(settings)
        else:
            allowed = "a run folder, or a model with --load or a file that says model.load"
            raise BadInput("no weights to test", key="MODEL", found=model, allowed=allowed)
    tested = job.figures(opened, data, split)
    rows: list[dict[str, Any]] = [asdict(figures) for figures in tested.classes]
    if json_:
        print_json({"split": split, **asdict(tested.overall), "classes": rows})
    elif not quiet:
        overall = tested.overall
        print_table(rows, f"{data.name}, {split} split: {overall.samples} rows, per class")
        output().print(f"{split} accuracy {overall.accuracy:.4f}   {split} loss {overall.loss:.4f}")
