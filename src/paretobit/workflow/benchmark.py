"""How fast a model's forward pass is on this machine, and how much memory it takes, in several variants."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.benchmark import timer

from paretobit.errors import BadInput, ParetoBitError
from paretobit.graph import two_rows
from paretobit.graph.contents import unchanged
from paretobit.graph.copies import copy_of
from paretobit.models import build, input_dtype, read_manifest
from paretobit.report.benchmark import Benchmark, Timing
from paretobit.runtime import device as device_named
from paretobit.runtime import one_thread, seeded
from paretobit.training.evaluate import run_on_view
from paretobit.workflow.assemble import build_model
from paretobit.workflow.benchmark_memory import kept_bytes, peak_bytes
from paretobit.workflow.benchmark_variants import EAGER, VARIANTS, NotOffered, Variant
from paretobit.workflow.inspect import sample_shape
from paretobit.workflow.opening import load_saved, named, open_saved
from paretobit.workflow.settings import Settings
from paretobit.workflow.train import load_data

_MOST_ROWS, _MOST_PASSES, _LONGEST = 2**20, 100_000, 3600
_RANDOM_ROWS = 64
_SHORTEST = 1e-7  # seconds: the clock's own


@dataclass(frozen=True)
class BenchmarkSettings:
    """What to measure, and for how long.

    Attributes:
        variants: Some of `VARIANTS`; None: all that the model and the machine have. `eager` is always
            measured: the others are compared with it.
        threads: Numbers of threads of torch.
        batch_sizes: Rows of a pass.
        device: `cpu`, `cuda`, `gpu` or `auto`.
        warmup: Passes before the clock counts, the first among them.
        repeats: Samples of each timing.
        seconds: What the samples of a timing take together, at least: where passes are short, a sample
            is the mean of several.
        seed: Of what is random in a pass.

    Raises:
        BadInput: An unknown variant or device, or a number out of range.
    """

    variants: tuple[str, ...] | None = None
    threads: tuple[int, ...] = (1,)
    batch_sizes: tuple[int, ...] = (64,)
    device: str = "cpu"
    warmup: int = 3
    repeats: int = 15
    seconds: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.variants or ():
            if name not in VARIANTS:
                raise BadInput("unknown variant", key="--variant", found=name, allowed=list(VARIANTS))
        processors = os.cpu_count() or 1
        _within("--threads", self.threads, processors, "the processors of this machine")
        _within("--batch-size", self.batch_sizes, _MOST_ROWS, "rows")
        _within("--warmup", (self.warmup,), _MOST_PASSES, "passes")
        _within("--repeats", (self.repeats,), _MOST_PASSES, "samples")
        if not 0 <= self.seconds <= _LONGEST:
            raise BadInput("not a time", key="--seconds", found=self.seconds, allowed=f"0 to {_LONGEST}")
        _ = self.place

    @property
    def names(self) -> tuple[str, ...]:
        """The variants that are asked for, `eager` first."""
        return tuple(dict.fromkeys((EAGER, *(self.variants or VARIANTS))))

    @property
    def place(self) -> torch.device:
        """Where to measure."""
        return device_named(self.device)


def _within(key: str, values: Sequence[int], most: int, of: str) -> None:
    for value in values:
        if not 1 <= value <= most:
            raise BadInput("out of range", key=key, found=value, allowed=f"1 to {most:,}, {of}")


def benchmark_named(
    settings: Settings,
    wanted: BenchmarkSettings,
    *,
    saved: str | None = None,
    other_data: bool = False,
    shape: str | None = None,
    classes: int = 10,
) -> Benchmark:
    """Benchmark the model of some settings, or a saved one, on rows of its data.

    Args:
        settings: Model and data by name.
        wanted: What to measure.
        saved: A saved model or run folder, in place of a name.
        other_data: Whether a saved model is run on the data of the settings, not on its own.
        shape: Shape of a sample (`16`, `3x32x32`) that is drawn at random, in place of data.
        classes: Classes, with `shape`.

    Raises:
        BadInput: The model is not there or does not fit, or what `benchmark` refuses.
    """
    if classes < 1:
        raise BadInput("a classifier has a class", key="--classes", found=classes, allowed="1 or more")
    if saved is not None:
        if shape is not None:
            raise BadInput("a saved model knows its shape", key="--input-shape", found=shape)
        model, x = _saved(saved, settings, other_data)
    elif shape is not None:
        model, x = _of_shape(settings, sample_shape(shape), classes)
    else:
        data = load_data(settings)
        model, x = build_model(settings.model, data, settings.seed), data.val.x
    return benchmark(model, x, wanted, name=saved or settings.model.name)


def _saved(folder: str, settings: Settings, other_data: bool) -> tuple[nn.Module, Tensor]:
    """A saved model, and rows of its data, or of the settings', or drawn at random where it names none."""
    page = read_manifest(folder)
    if "data" in page or other_data:
        model, data = open_saved(folder, settings.data if other_data else None, named(settings.model))
        return model, data.val.x
    model, source = load_saved(folder, named(settings.model))
    return model, _random_rows(model, tuple(source["input_shape"]), settings.seed)


def _of_shape(settings: Settings, shape: tuple[int, ...], classes: int) -> tuple[nn.Module, Tensor]:
    """A fresh model for samples of a shape, and samples drawn at random."""
    chosen = settings.model
    if chosen.load is not None:
        raise BadInput("a checkpoint's model is run on its data", key="--input-shape", found=chosen.load)
    model = build(chosen.name, shape, classes, settings.seed, config=chosen.config, head=chosen.head)
    return model, _random_rows(model, shape, settings.seed)


def benchmark(
    model: nn.Module, x: Tensor, wanted: BenchmarkSettings | None = None, *, name: str = "model"
) -> Benchmark:
    """Time a model's forward pass in evaluation mode, without gradients.

    Variants in one setting (threads, batch size) take turns, sample by sample, so that what disturbs the
    machine disturbs all of them. Settings follow each other. The caller's model is not changed, and the
    number of threads is as before afterwards; what `torch.compile` has compiled is forgotten.

    Args:
        model: Maps `(rows, ...)` to a tensor.
        x: Rows; they are repeated where a batch has more.
        wanted: What to measure.
        name: Of the model, for what is printed.

    Raises:
        BadInput: A variant that was asked for and that this model or machine does not have, or a model
            that does not run on these rows, or whose result is no finite tensor.
    """
    wanted = wanted or BenchmarkSettings()
    if len(x) == 0:
        raise BadInput("no rows to run")
    place = wanted.place
    model = copy_of(model).eval().to(place)
    timings: list[Timing] = []
    skipped: dict[str, str] = {}
    with one_thread(), torch.no_grad(), seeded(wanted.seed):
        offered = _offered(model, two_rows(x).to(place), wanted, skipped)
        for threads in dict.fromkeys(wanted.threads):
            torch.set_num_threads(threads)
            for rows in dict.fromkeys(wanted.batch_sizes):
                batch = x[torch.arange(rows) % len(x)].to(place)
                timings += _Setting(model, batch, threads, wanted, skipped).measured(offered)
    kind = torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu"
    machine = {"device": kind, "processors": os.cpu_count(), "torch": torch.__version__}
    return Benchmark(name, machine, tuple(timings), skipped)


@dataclass(frozen=True)
class _Setting:
    """One number of threads and one batch; what fails in it is noted in `skipped`."""

    model: nn.Module
    batch: Tensor
    threads: int
    wanted: BenchmarkSettings
    skipped: dict[str, str]

    def measured(self, names: Sequence[str]) -> list[Timing]:
        """Every variant that runs, `eager` first."""
        torch.compiler.reset()
        try:
            ready = [cell for name in names if (cell := self._ready(name)) is not None]
            reference = ready[0].result
            samples = self._samples(ready)
            eager = statistics.median(samples[0])
            return [
                self._timing(cell, found, statistics.median(found) / eager, reference)
                for cell, found in zip(ready, samples, strict=True)
            ]
        finally:
            torch.compiler.reset()

    def _ready(self, name: str) -> _Ready | None:
        """A variant, warm."""
        try:
            return _warmed(name, VARIANTS[name](self.model, self.batch), self.batch, self.wanted)
        except Exception as error:  # compilers and kernels fail in ways of their own
            where = f"{name}, {self.threads} threads, batch {len(self.batch)}"
            lines = str(error).strip().splitlines()
            reason = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
            if name == EAGER:
                raise ParetoBitError(f"the model does not run: {where}: {reason}") from error
            self.skipped[where] = reason
            return None

    def _samples(self, ready: Sequence[_Ready]) -> list[tuple[float, ...]]:
        """Seconds of a pass, one value a repeat, of each variant; they take turns, each the first at times."""
        found: list[list[float]] = [[] for _ in ready]
        for number in range(self.wanted.repeats):
            for place in range(len(ready)):
                index = (place + number) % len(ready)
                cell = ready[index]
                found[index].append(_seconds(cell.variant, self.batch, cell.passes) / cell.passes)
        return [tuple(samples) for samples in found]

    def _timing(self, cell: _Ready, samples: tuple[float, ...], ratio: float, reference: Tensor) -> Timing:
        return Timing(
            variant=cell.name,
            threads=self.threads,
            batch_size=len(self.batch),
            samples=samples,
            passes=cell.passes,
            ratio=ratio,
            first_seconds=cell.first_seconds,
            kept_bytes=kept_bytes(cell.variant.model),
            peak_bytes=cell.peak_bytes,
            difference=_difference(cell.result, reference),
            note=cell.variant.note,
        )


@dataclass(frozen=True)
class _Ready:
    name: str
    variant: Variant
    first_seconds: float
    passes: int
    peak_bytes: int
    result: Tensor


def _warmed(name: str, variant: Variant, batch: Tensor, wanted: BenchmarkSettings) -> _Ready:
    """Run a variant until it is warm; look at what it gives and at its memory."""
    first = last = _seconds(variant, batch, 1)
    for _ in range(wanted.warmup - 1):
        last = _seconds(variant, batch, 1)
    with seeded(wanted.seed), variant.within():
        result = variant.run(batch)
    if wanted.warmup == 1:
        last = _seconds(variant, batch, 1)  # the first pass may have compiled
    passes = max(1, math.ceil(wanted.seconds / wanted.repeats / max(last, _SHORTEST)))
    return _Ready(name, variant, first, passes, peak_bytes(variant, batch), result)


def _seconds(variant: Variant, batch: Tensor, passes: int) -> float:
    """Of so many passes in a row; the clock waits for the device."""
    run = variant.run
    with variant.within(), unchanged():
        start = timer()
        for _ in range(passes):
            run(batch)
        return timer() - start


def _offered(model: nn.Module, x: Tensor, wanted: BenchmarkSettings, skipped: dict[str, str]) -> list[str]:
    """Those that this model and machine have; a variant that was asked for by name must be among them."""
    _run_once(model, x)
    offered = []
    for name in wanted.names:
        try:
            VARIANTS[name](model, x)
        except NotOffered as reason:
            if wanted.variants is not None:
                raise BadInput(f"not for this model: {reason}", key="--variant", found=name) from None
            skipped[name] = str(reason)
        else:
            offered.append(name)
    return offered


def _run_once(model: nn.Module, x: Tensor) -> None:
    """Refuse a model that does not run on a row."""
    try:
        result = run_on_view(model, x)
    except ParetoBitError:
        raise
    except Exception as error:  # the model's own
        problem = f"the model does not run on these rows: {type(error).__name__}: {error}"
        raise BadInput(problem, found=tuple(x.shape)) from error
    if not isinstance(result, Tensor):
        raise BadInput("the model's result is no tensor", found=type(result).__name__)
    if not torch.isfinite(result).all():
        raise BadInput("the model's result has NaN or infinity")


def _random_rows(model: nn.Module, shape: tuple[int, ...], seed: int) -> Tensor:
    """Normal numbers, or token ids of the model's vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    if input_dtype(model) != torch.int64:
        return torch.randn(_RANDOM_ROWS, *shape, generator=generator)
    config: Any = model.config
    return torch.randint(0, int(config.vocab_size), (_RANDOM_ROWS, *shape), generator=generator)


def _difference(result: Tensor, reference: Tensor) -> float:
    """Largest absolute difference."""
    return float((result.double() - reference.double()).abs().max()) if result.numel() else 0.0
