"""`paretobit enumerate`."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from paretobit.cli.console import (
    INTERRUPTED,
    document_from,
    errors,
    guarded,
    output,
    print_json,
    progress_lines,
    require_space,
)
from paretobit.cli.options import Json, Out, Quiet, Resume, Set
from paretobit.errors import BadInput


@guarded
def enumerate_(
    config: Annotated[
        Path | None, typer.Argument(help="TOML file of a search. With --resume the run folder has it.")
    ] = None,
    out: Out = None,
    resume: Resume = False,
    limit: Annotated[int | None, typer.Option("--limit", help="Configurations at most. Default: 200,000.")] = None,
    test: Annotated[bool, typer.Option("--test", help="Measure on the test split as well.")] = False,
    set_: Set = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Measure every configuration of a space once: the run folder gets table.npz, which `compare` replays."""
    own = out if config is None and resume else None
    if own is not None:
        config = own / "config.toml"
    if config is None:
        raise BadInput("no configuration: name a TOML file, or --out FOLDER --resume", key="CONFIG")
    document = document_from(config, {}, set_, quiet or json_, own)
    require_space(document)

    from paretobit.workflow.enumeration import LIMIT, enumerate_space
    from paretobit.workflow.run_folder import RunFolder
    from paretobit.workflow.settings import Settings

    settings = Settings.from_document(document)
    folder = RunFolder.choose(out, settings.project or config.stem, resume=resume)
    try:
        with document.placing(), redirect_stdout(sys.stderr), progress_lines(quiet or json_) as lines:
            path = enumerate_space(
                settings,
                document,
                folder,
                limit=LIMIT if limit is None else limit,
                test=test,
                on_epoch=lambda epoch: lines.on_epoch(epoch, settings.train.max_epochs),
                on_trial=lines.on_trial,
            )
    except KeyboardInterrupt:
        errors().print(f"interrupted; go on with: paretobit enumerate --out {folder.path} --resume")
        raise typer.Exit(INTERRUPTED) from None
    _print(path, quiet, json_)


def _print(path: Path, quiet: bool, json_: bool) -> None:
    from paretobit.comparing.table import Table

    table = Table.open(path)
    missing = table.about["evidence_absent"]
    if json_:
        print_json(
            {
                "table": str(path),
                "configurations": len(table),
                "metrics": list(table.columns),
                "bytes": path.stat().st_size,
                "evidence": table.has_evidence,
                "evidence_absent": missing,
            }
        )
    elif not quiet:
        size = f"{path.stat().st_size / 1000:,.0f} kB"
        output().print(f"{len(table):,} configurations, {len(table.columns)} metrics: {path} ({size})")
        if missing is not None:
            output().print(f"without evidence for 'guided': {missing}")
