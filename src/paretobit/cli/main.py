"""The command `paretobit`."""

from typing import Annotated

import typer

from paretobit._version import __version__
from paretobit.cli import (
    benchmark,
    compare,
    doctor,
    enumeration,
    listing,
    plan,
    report,
    search,
    sensitivity,
    show,
    train,
    transform,
)

app = typer.Typer(
    name="paretobit",
    help="Find the trade-off front between how well a PyTorch model works and what it costs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("test")(train.run_test)
app.command("transform")(transform.transform)
app.command("search")(search.search)
app.command("plan")(plan.plan)
app.command("doctor")(doctor.doctor)
app.command("inspect")(plan.inspect)
app.command("sensitivity")(sensitivity.sensitivity)
app.command("benchmark")(benchmark.benchmark)
app.command("show")(show.show)
app.command("report")(report.report)
app.command("enumerate")(enumeration.enumerate_)
app.command("compare")(compare.compare)
app.command("list")(listing.list_)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"paretobit {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point."""
    app()
