"""`paretobit doctor`: can a search be believed?"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from paretobit.cli.console import document_from, errors, escaped, guarded, output, print_json, require_space
from paretobit.cli.options import Json, Set

_COLOURS = {"ok": "green", "warn": "yellow", "failed": "bold red", "not applicable": "dim"}


@guarded
def doctor(
    config: Annotated[Path, typer.Argument(help="TOML file of a search.")],
    set_: Set = None,
    trials: Annotated[
        int | None, typer.Option("--trials", help="Evaluations of the model, about: more look at more.")
    ] = None,
    json_: Json = False,
) -> None:
    """Prove that trials do not leak, seeds reproduce, every metric moves, and the data can tell.

    Nothing is trained and nothing is written. Exit code 1 if a check failed.
    """
    document = document_from(config, {}, set_, json_)
    require_space(document)

    from paretobit.doctor import examine
    from paretobit.workflow.settings import Settings
    from paretobit.workflow.setup import assemble

    settings = Settings.from_document(document)
    with document.placing():
        assembled = assemble(settings, document)
    trained = assembled.subject.has_weights
    if not trained and not json_:
        errors().print("[yellow]note:[/] these are the weights before training; give others: model.load")
    checks = examine(assembled.session, trials, trained=trained)
    failed = sum(check.state == "failed" for check in checks)
    evaluations = sum(check.evaluations for check in checks)
    if json_:
        found = [asdict(check) for check in checks]
        print_json({"ok": not failed, "evaluations": evaluations, "checks": found})
    else:
        for check in checks:
            state = f"[{_COLOURS[check.state]}]{check.state:14}[/]"
            output().print(f"{state} {escaped(check.name)}: {escaped(check.said)}", soft_wrap=True)
        warned = sum(check.state == "warn" for check in checks)
        counts = f"{len(checks)} checks, {failed} failed" + (f", {warned} warn" if warned else "")
        output().print(f"{counts}; {evaluations} evaluations of the model")
    if failed:
        raise typer.Exit(1)
