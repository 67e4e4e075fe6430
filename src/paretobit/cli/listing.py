"""`paretobit list`: what there is, one line each."""

from typing import Annotated

import typer

from paretobit.cli.console import guarded, output, print_json, print_table
from paretobit.cli.options import Json


@guarded
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(help="formats, models, datasets, spaces, strategies, samplers, runners, metrics or settings."),
    ] = None,
    aliases: Annotated[
        bool, typer.Option("--aliases", help="The reports' names, and what they are called here.")
    ] = False,
    json_: Json = False,
) -> None:
    """What there is: formats, models, datasets, spaces, strategies, samplers, runners, metrics, settings."""
    from paretobit.compat import aliases as old_names
    from paretobit.workflow.catalogue import catalogue

    found = {"aliases": old_names()} if aliases else catalogue(kind)
    if json_:
        print_json(found)
        return
    for title, rows in found.items():
        output().print(f"[bold]{title}[/]")
        print_table(rows)
