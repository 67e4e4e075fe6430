"""`paretobit train` and `paretobit test`."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from paretobit.cli.console import guarded, output, print_json, print_table, progress_lines
from paretobit.cli.options import ModelOptions, Resume, RunOptions, with_options
from paretobit.errors import BadInput


@with_options(RunOptions)
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


@with_options(ModelOptions)
@guarded
def run_test(
    options: ModelOptions, split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "test"
) -> None:
    """Figures of a trained model on one split, overall and per class."""
    document = options.document()

    from paretobit.workflow import train as job
    from paretobit.workflow.opening import named, open_saved
    from paretobit.workflow.settings import Settings

    settings = Settings.from_document(document)
    with document.placing():
        if options.saved is not None:
            data_settings = settings.data if options.other_data else None
            opened, data = open_saved(options.saved, data_settings, named(settings.model))
        elif settings.model.load is not None:
            opened, data = job.open_checkpoint(settings)
        else:
            allowed = "a run folder, or a model with --load or a file that says model.load"
            raise BadInput("no weights to test", key="MODEL", found=options.model, allowed=allowed)
    tested = job.figures(opened, data, split)
    rows: list[dict[str, Any]] = [asdict(figures) for figures in tested.classes]
    if options.json_:
        print_json({"split": split, **asdict(tested.overall), "classes": rows})
    elif not options.quiet:
        overall = tested.overall
        print_table(rows, f"{data.name}, {split} split: {overall.samples} rows, per class")
        output().print(f"{split} accuracy {overall.accuracy:.4f}   {split} loss {overall.loss:.4f}")
