"""`paretobit search`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paretobit.cli.console import (
    INTERRUPTED,
    errors,
    escaped,
    guarded,
    output,
    print_front,
    print_json,
    print_notes,
    progress_lines,
    require_space,
)
from paretobit.cli.options import Resume, RunOptions, with_options
from paretobit.errors import BadInput

if TYPE_CHECKING:
    from paretobit.studies.study import Study
    from paretobit.workflow.run_folder import RunFolder


@with_options(RunOptions)
@guarded
def search(
    options: RunOptions,
    strategy: Annotated[str | None, typer.Option("--strategy", help="brute_force, or a sampler: tpe …")] = None,
    n_trials: Annotated[int | None, typer.Option("--trials", help="Trials at most.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", help="Seconds; no trial starts later.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", "-w", help="Processes that evaluate.")] = None,
    warm_start: Annotated[
        Path | None, typer.Option("--warm-start", help="Run folder whose trials are taken over.")
    ] = None,
    resume: Resume = False,
    extend: Annotated[
        bool, typer.Option("--extend", help="With --resume: go on in a changed space with what is still valid.")
    ] = False,
) -> None:
    """Search what may vary: the run folder gets the study, the front, a picture and the winner."""
    if resume and options.config is None and options.out is not None:
        options = replace(options, config=options.out / "config.toml", run=options.out)
    document = options.document(
        search__strategy=None if strategy is None else {"name": strategy},
        search__n_trials=n_trials,
        search__timeout=timeout,
        search__workers=workers,
        search__warm_start=None if warm_start is None else str(warm_start),
    )
    if extend and not resume:
        raise BadInput("a study is extended where it is resumed: add --resume", key="--extend")
    require_space(document)

    from paretobit.workflow.run import run
    from paretobit.workflow.run_folder import RunFolder
    from paretobit.workflow.settings import Settings
    from paretobit.workflow.setup import assemble
    from paretobit.workflow.train import check_device

    settings = Settings.from_document(document)
    if not settings.model.given:
        check_device(settings, document)
    name = settings.project or (options.config.stem if options.config else "search")
    folder = RunFolder.choose(options.out, name, resume=resume)
    try:
        with document.placing(), redirect_stdout(sys.stderr), progress_lines(options.silent) as lines:
            assembled = assemble(settings, document, begun=folder.begun)
            for dropped in assembled.session.space.dropped:
                errors().print(f"[yellow]warning:[/] knob '{dropped.knob}' has no effect: {dropped.reason}")
            if assembled.session.space.impossible:
                errors().print(f"[yellow]excluded:[/] {escaped(assembled.session.space.impossible)}")
            study = run(
                assembled,
                folder,
                on_epoch=lambda epoch: lines.on_epoch(epoch, settings.train.max_epochs),
                on_trial=lines.on_trial,
                on_judged=lines.on_judged,
                extend=extend,
            )
    except KeyboardInterrupt:
        errors().print(f"interrupted; go on with: paretobit search --out {folder.path} --resume")
        raise typer.Exit(INTERRUPTED) from None
    with study:
        _print(study, folder, options)


def _print(study: Study, folder: RunFolder, options: RunOptions) -> None:
    from paretobit.report import baseline_row, front_rows
    from paretobit.studies.answers import rejected_unrun

    counts = study.counts()
    if options.json_:
        answer = {"baseline": baseline_row(study), "front": front_rows(study)}
        print_json({"folder": str(folder.path), "trials": counts, **answer, "notes": study.facts.get("notes", [])})
        return
    if options.quiet:
        return
    print_front(study)
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    unrun = rejected_unrun(study, study.facts["metrics"])
    said += f" ({unrun} rejected before the model ran)" if unrun else ""
    output().print(f"{len(study)} trials: {said}")
    winner = folder.best / "model.json"
    kept = f"; winner in {folder.best}" if winner.exists() else "; no trial answers the question for best/"
    output().print(f"saved in {folder.path}: study.db, trials.csv, front.csv, {folder.picture.name}{kept}")
    print_notes(study)
    chosen = study.facts.get("optimism", {}).get("accuracy", {})
    if len(chosen) == 2:
        front, baseline = chosen["front"], chosen["baseline"]
        output().print(f"validation is above test by {front:+.4f} on the front, {baseline:+.4f} for the baseline")
    if not len(study.front()):
        errors().print("[yellow]warning:[/] no feasible trial: the front is empty")
