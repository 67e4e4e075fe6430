"""`paretobit benchmark`: how fast a model is on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from paretobit.cli.console import escaped, guarded, output, print_json, print_table
from paretobit.cli.options import ModelOptions, with_options


@with_options(ModelOptions)
@guarded
def benchmark(
    options: ModelOptions,
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
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for benchmark.csv and benchmark.png.")] = None,
) -> None:
    """Time of a forward pass, eager, compiled, by attention and with packed weights; memory; difference."""
    document = options.document()

    from paretobit.errors import BadInput
    from paretobit.report.benchmark import benchmark_rows, write_benchmark
    from paretobit.workflow.benchmark import BenchmarkSettings, benchmark_named
    from paretobit.workflow.settings import Settings

    if options.model is None and not document.get("model.name"):
        raise BadInput("no model to run", key="MODEL", allowed="a run folder, a TOML file, or a model by name")
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
    with document.placing():
        found = benchmark_named(
            settings, wanted, saved=options.saved, other_data=options.other_data, shape=shape, classes=classes
        )
    written = write_benchmark(found, out) if out is not None else ()
    if options.json_:
        print_json(found.page())
    elif not options.quiet:
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
