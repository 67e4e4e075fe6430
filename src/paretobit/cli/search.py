"""`paretobit search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paretobit.cli.console import (
    INTERRUPTED,
    Config,
    Json,
    Out,
    Quiet,
    Resume,
    Seed,
    Set,
    document_from,
    errors,
    guarded,
    output,
    print_front,
    print_json,
    progress_lines,
)
from paretobit.cli.train import Dataset, Model
from paretobit.errors import BadInput

if TYPE_CHECKING:
    from paretobit.search import Study
    from paretobit.workflow.run_folder import RunFolder


@guarded
def search(
    model: Model = None,
    dataset: Dataset = None,
    config: Config = None,
    load: Annotated[
        Path | None, typer.Option("--load", help="Checkpoint; without one the model is trained.")
    ] = None,
    strategy: Annotated[str | None, typer.Option("--strategy", help="brute_force, tpe, random …")] = None,
    n_trials: Annotated[int | None, typer.Option("--trials", help="Trials at most.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", help="Seconds; no trial starts later.")] = None,
    project: Annotated[str | None, typer.Option("--project", help="Name of the run's folder in runs/.")] = None,
    seed: Seed = None,
    out: Out = None,
    resume: Resume = False,
    set_: Set = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Search what may vary: the run folder gets the study, the front, a picture and the winner."""
    if resume and config is None and out is not None:
        config = out / "config.toml"
    flags = {
        "model.name": model,
        "data.name": dataset,
        "model.load": str(load) if load else None,
        "search.strategy.name": strategy,
        "search.n_trials": n_trials,
        "search.timeout": timeout,
        "project": project,
        "seed": seed,
    }
    document = document_from(config, flags, set_)
    if not document.get("search.space"):
        raise BadInput("nothing may vary: the file has no [search.space]", source=config, key="search.space")

    from paretobit.workflow.run import run
    from paretobit.workflow.run_folder import RunFolder
    from paretobit.workflow.search import Search
    from paretobit.workflow.settings import Settings

    settings = Settings.from_document(document)
    name = settings.project or (config.stem if config else "search")
    folder = RunFolder.choose(out, name, resume=resume)
    silent = quiet or json_

    def on_start(started: Search) -> None:
        for dropped in started.space.dropped:
            errors().print(f"[yellow]warning:[/] knob '{dropped.knob}' has no effect: {dropped.reason}")

    try:
        with progress_lines(silent) as lines:
            study = run(
                settings,
                document,
                folder,
                on_epoch=lambda epoch: lines.on_epoch(epoch, settings.train.max_epochs),
                on_trial=lines.on_trial,
                on_start=on_start,
            )
    except KeyboardInterrupt:
        errors().print(f"interrupted; go on with: paretobit search --out {folder.path} --resume")
        raise typer.Exit(INTERRUPTED) from None
    _print(study, folder, quiet, json_)


def _print(study: Study, folder: RunFolder, quiet: bool, json_: bool) -> None:
    from paretobit.report import baseline_row, front_rows

    counts = study.counts()
    if json_:
        answer = {"baseline": baseline_row(study), "front": front_rows(study)}
        print_json({"folder": str(folder.path), "trials": counts, **answer})
        return
    if quiet:
        return
    print_front(study)
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    output().print(f"{len(study)} trials: {said}")
    winner = folder.best / "model.json"
    kept = f"; winner in {folder.best}" if winner.exists() else "; no trial answers the question for best/"
    output().print(f"saved in {folder.path}: study.db, trials.csv, front.csv, {folder.picture.name}{kept}")
    if not len(study.front()):
        errors().print("[yellow]warning:[/] no feasible trial: the front is empty")
