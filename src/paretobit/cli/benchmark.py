"""`paretobit benchmark`: how fast a model is on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paretobit.cli.console import escaped, guarded, output, print_json, print_table
from paretobit.cli.options import Config, Dataset, DataToo, Json, Load, ModelToo, Quiet, Set, document_of_model


@guarded
def benchmark(
    model: Annotated[
        str | None,
        typer.Argument(help="A run folder, a saved model, a TOML file, or a model by name."),
    ] = None,
    dataset: Dataset = None,
    model_too: ModelToo = None,
    data_too: DataToo = None,
    config: Config = None,
    load: Load = None,
    variants: Annotated[
        list[str] | None,
        typer.Option(
            "--variant",
            help="eager, compile, fused_attention, plain_attention or packed_mxint8. Repeatable. "
            "Default: all that the model has. eager is always measured.",
        ),
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option("--threads", help="Threads of torch. Repeatable. Default: 1.")
    ] = None,
    batch_sizes: Annotated[
        list[int] | None, typer.Option("--batch-size", help="Rows of a pass. Repeatable. Default: 64.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda or auto.")] = "cpu",
    warmup: Annotated[int, typer.Option("--warmup", help="Passes before the clock counts.")] = 3,
    repeats: Annotated[int, typer.Option("--repeats", help="Samples of each timing.")] = 15,
    seconds: Annotated[
        float, typer.Option("--seconds", help="What the samples of a timing take together, at least.")
    ] = 0.3,
    shape: Annotated[
        str | None,
        typer.Option("--input-shape", help="Shape of random samples, 16 or 3x32x32, in place of a data set."),
    ] = None,
    classes: Annotated[int, typer.Option("--classes", help="Classes, with --input-shape.")] = 10,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for benchmark.csv and benchmark.png.")
    ] = None,
    set_: Set = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Time of a forward pass, eager, compiled, by attention and with packed weights; memory; difference."""
    document, saved = document_of_model(
        model, data_too or dataset, config, load, set_, quiet or json_, model_too
    )

    from paretobit.errors import BadInput
    from paretobit.report.benchmark import benchmark_rows, write_benchmark
    from paretobit.workflow.benchmark import BenchmarkSettings, benchmark_named
    from paretobit.workflow.settings import Settings

    if model is None and not document.get("model.name"):
        raise BadInput("no model to run", key="MODEL", allowed="a run folder, a TOML file, or a model by name")
    if saved is not None and load is not None:
        raise BadInput("the folder has weights of its own", key="--load", found=str(load))
    if out is not None and out.exists() and not out.is_dir():
        raise BadInput("not a folder", key="--out", found=str(out))
    wanted = BenchmarkSettings(
        variants=tuple(variants) if variants else None,
        threads=tuple(threads or (1,)),
        batch_sizes=tuple(batch_sizes or (64,)),
        device=device,
        warmup=warmup,
        repeats=repeats,
        seconds=seconds,
    )
    settings = Settings.from_document(document)
    given = (data_too or dataset) is not None or config is not None or bool(set_)
    with document.placing():
        found = benchmark_named(settings, wanted, saved=saved, other_data=given, shape=shape, classes=classes)
    written = write_benchmark(found, out) if out is not None else ()
    if json_:
        print_json(found.page())
    elif not quiet:
        where = f"{found.machine['device']}, torch {found.machine['torch']}"
        rows = benchmark_rows(found)
        names = [name for name in rows[0] if any(row[name] != "" for row in rows)]
        print_table(rows, f"{found.model} on {where}; median of {repeats} samples", names)
        if found.skipped:
            output().print("[yellow]not measured:[/]")
            for name, reason in found.skipped.items():
                output().print(f"  {escaped(name)}: {escaped(reason)}")
        for path in written:
            output().print(f"wrote {escaped(str(path))}")
