"""`paretobit plan` and `paretobit inspect`: look before you leap."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from paretobit.cli.console import (
    document_from,
    escaped,
    guarded,
    output,
    print_json,
    print_notes,
    print_table,
    require_space,
)
from paretobit.cli.options import Config, Dataset, DataToo, Json, Load, Model, ModelToo, Set


@guarded
def plan(
    model: Model = None,
    dataset: Dataset = None,
    config: Config = None,
    load: Load = None,
    n_trials: Annotated[int | None, typer.Option("--trials", help="Trials at most.")] = None,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """What a search would do: size, layers, knobs, range of every cheap metric, estimated time."""
    flags = {
        "model.name": model,
        "data.name": dataset,
        "model.load": str(load) if load else None,
        "search.n_trials": n_trials,
    }
    document = document_from(config, flags, set_)
    require_space(document)

    from paretobit.workflow.plan import plan as make
    from paretobit.workflow.settings import Settings
    from paretobit.workflow.setup import assemble

    with document.placing():
        planned = make(assemble(Settings.from_document(document), document).session)
    if json_:
        print_json({**asdict(planned), "configurations": str(planned.configurations), "seconds": planned.seconds})
        return
    say = output().print
    say(f"{planned.configurations:,} configurations; {planned.trials:,} trials of {planned.strategy}")
    training = "its training included" if planned.trains else "without training"
    pace = f"{planned.seconds:.3g} s at {1e3 * planned.seconds_per_trial:.3g} ms a trial"
    say(f"about {pace}, {training}")
    say(f"varies: {', '.join(planned.matched)}")
    say(f"leaves alone: {', '.join(planned.unmatched) or 'nothing'}")
    if planned.impossible:
        say(f"[yellow]excluded:[/] {escaped(planned.impossible)}")
    print_table([{"knob": name, "values": escaped_list(values)} for name, values in planned.knobs.items()])
    for knob, reason in planned.dropped.items():
        say(f"[yellow]without effect:[/] {escaped(knob)} ({reason})")
    rows = [
        {"metric": name, "smallest": low, "largest": high, "float": planned.baseline[name]}
        for name, (low, high) in planned.ranges.items()
    ]
    print_table(rows)
    if planned.untraced:
        say(f"[yellow]the graph is incomplete:[/] {escaped(planned.untraced)}")
    print_notes(planned.notes)


@guarded
def inspect(
    model: Model,
    dataset: Dataset = None,
    model_too: ModelToo = None,
    data_too: DataToo = None,
    config: Config = None,
    convention: Annotated[str, typer.Option("--convention", help="How to count: standard, lab2 or lab3.")] = "standard",
    batch: Annotated[int, typer.Option("--batch", help="Rows that lab2 and lab3 count.")] = 1,
    shape: Annotated[
        str | None, typer.Option("--input-shape", help="Shape of a sample, 16 or 3x32x32, in place of a data set.")
    ] = None,
    classes: Annotated[int, typer.Option("--classes", help="Classes, with --input-shape.")] = 10,
    set_: Set = None,
    json_: Json = False,
) -> None:
    """A model's graph and costs: a model by name, or a saved one with its formats."""
    given = None if model and Path(model).is_dir() else model
    flags = {"model.name": model_too or given, "data.name": data_too or dataset}
    document = document_from(config, flags, set_)

    from paretobit.report import cost_rows, quantization_rows
    from paretobit.workflow.inspect import inspect as look
    from paretobit.workflow.settings import Settings

    settings = Settings.from_document(document)
    saved = model if model and Path(model).is_dir() else None
    with document.placing():
        found = look(settings, saved=saved, shape=shape, classes=classes, convention=convention, batch=batch)
    if json_:
        print_json(
            {
                "kinds": found.report.kinds,
                "layers": found.report.layers,
                "untraced": found.report.untraced,
                "types": quantization_rows(found.summary),
                "costs": cost_rows(found.costs),
                "uncounted": found.costs.uncounted,
                "uncounted_ops": found.costs.uncounted_ops,
                "coverage": found.coverage.to_json(),
                "unused_parameters": found.costs.unused,
                "peak_memory": found.costs.peak_memory,
                "widths": found.widths.rows(),
            }
        )
        return
    say = output().print
    say("  ".join(f"{kind} {count}" for kind, count in found.report.kinds.items()))
    for layer in found.report.layers:
        say(f"  {escaped(layer)}")
    print_table(quantization_rows(found.summary))
    print_table(cost_rows(found.costs), f"Costs, convention {convention}, batch {found.costs.batch}")
    say(f"peak activation memory {found.costs.peak_memory:,.0f} bytes a sample")
    print_table(found.widths.rows(), "Width groups")
    if found.report.untraced:
        say(f"[yellow]the graph is that of one run:[/] {escaped(found.report.untraced)}")
    if found.costs.unused:
        say(f"[yellow]parameters that nothing uses:[/] {', '.join(found.costs.unused)}")
    print_notes(found.coverage.said)


def escaped_list(values: tuple[object, ...]) -> str:
    """Values of a knob on one line."""
    return ", ".join(map(str, values))
