"""A benchmark times what it says, takes turns, compares with eager, and says what was not measured."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from paretobit.errors import BadInput
from paretobit.formats import MXINT8, Integer
from paretobit.models import build
from paretobit.nn import TensorCache, instrument
from paretobit.passes.layers.assignment import apply_assignment
from paretobit.report.benchmark import Benchmark, Timing, benchmark_rows, draw_benchmark, write_benchmark
from paretobit.report.figures import drawn
from paretobit.runtime import cpp_compiler
from paretobit.workflow import benchmark_variants
from paretobit.workflow.benchmark import BenchmarkSettings, benchmark
from paretobit.workflow.benchmark_memory import kept_bytes, peak_bytes
from paretobit.workflow.benchmark_variants import VARIANTS, NotOffered, Variant

FAST: dict[str, Any] = {"repeats": 3, "seconds": 0.0, "warmup": 1, "batch_sizes": (8,)}
TINY_BERT = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def mlp(inplace: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(100, 1000), nn.ReLU(inplace), nn.Linear(1000, 10)).eval()


class Attends(nn.Module):
    """Softmax attention of one head, by torch's function."""

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x).flatten(1)


class Kernels(TorchDispatchMode):
    """Names of the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def kernels(name: str, model: nn.Module, x: Tensor) -> str:
    with torch.no_grad():
        variant = VARIANTS[name](model, x)
        with variant.within(), Kernels() as seen:
            variant.run(x)
    return " ".join(seen.names)


def only(found: Benchmark, name: str) -> Timing:
    (timing,) = (t for t in found.timings if t.variant == name)
    return timing


class Logged:
    """Variants that note when they run."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []

    def make(self, name: str, pause: float = 0.0) -> Any:
        def variant(model: nn.Module, x: Tensor) -> Variant:
            def run(batch: Tensor) -> Tensor:
                self.log.append((name, torch.get_num_threads()))
                time.sleep(pause)
                return model(batch)

            return Variant(model, run)

        return variant


def test_variants_take_turns_and_warm_up_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    logged = Logged()
    for name in ("eager", "compile"):
        monkeypatch.setitem(VARIANTS, name, logged.make(name))
    wanted = BenchmarkSettings(variants=("compile",), repeats=4, seconds=0.0, warmup=5, batch_sizes=(2,))
    found = benchmark(mlp(), torch.randn(3, 100), wanted)
    names = [name for name, _ in logged.log]
    assert names[-8:] == ["eager", "compile", "compile", "eager"] * 2
    assert names[:5] == ["eager"] * 5
    assert [len(t.samples) for t in found.timings] == [4, 4]
    assert all(t.passes == 1 for t in found.timings)


def test_the_clock_tells_a_pause_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    logged = Logged()
    monkeypatch.setitem(VARIANTS, "eager", logged.make("eager", 0.002))
    monkeypatch.setitem(VARIANTS, "compile", logged.make("compile", 0.02))
    found = benchmark(nn.Linear(4, 2), torch.randn(5, 4), BenchmarkSettings(variants=("compile",), **FAST))
    slow, quick = only(found, "compile"), only(found, "eager")
    assert min(slow.samples) >= 0.02
    assert quick.ratio == 1
    assert slow.ratio == pytest.approx(slow.median / quick.median)
    assert slow.ratio > 1.5
    assert slow.rows_per_second == pytest.approx(8 / slow.median)


def test_short_passes_are_timed_many_at_a_time() -> None:
    wanted = BenchmarkSettings(variants=("eager",), repeats=4, seconds=0.04, warmup=20, batch_sizes=(1,))
    (timing,) = benchmark(nn.Linear(4, 2), torch.randn(5, 4), wanted).timings
    assert timing.passes > 1
    assert len(timing.samples) == 4
    assert min(timing.samples) < 0.04 / 4  # of one pass, not of all


def test_threads_are_those_asked_for_and_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    logged, before = Logged(), torch.get_num_threads()
    monkeypatch.setitem(VARIANTS, "eager", logged.make("eager"))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    wanted = BenchmarkSettings(variants=("eager",), threads=(2, 1), **FAST)
    found = benchmark(nn.Linear(4, 2), torch.randn(5, 4), wanted)
    assert [t.threads for t in found.timings] == [2, 1]
    assert list(dict.fromkeys(count for _, count in logged.log)) == [2, 1]
    assert torch.get_num_threads() == before


def test_model_and_rows_are_left_alone() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 3), nn.Dropout(0.5)).train()
    x = torch.randn(4, 6)
    kept, rows = {k: v.clone() for k, v in model.state_dict().items()}, x.clone()
    random_before = torch.random.get_rng_state()
    found = benchmark(model, x, BenchmarkSettings(variants=("packed_mxint8",), **FAST))
    assert model.training
    assert torch.equal(x, rows)
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random_before)
    assert [t.variant for t in found.timings] == ["eager", "packed_mxint8"]


def test_packed_weights_differ_from_eager_as_the_format_in_the_slot_does() -> None:
    model, x = mlp(), torch.randn(8, 100)
    found = benchmark(model, x, BenchmarkSettings(variants=("packed_mxint8",), **FAST))
    with torch.no_grad():
        before = model(x)
        for index in (0, 2):
            instrument(model[index], TensorCache()).set_slots({"weight": MXINT8()})
        expected = (model(x) - before).abs().max().item()
    packed = only(found, "packed_mxint8")
    assert packed.difference == pytest.approx(expected, rel=1e-5)
    assert packed.note == "2 of 2 linear layers packed"
    assert packed.kept_bytes == 1000 * 4 * 33 + 10 * 32 * 33 + 4 * 1010  # 100 and 1000 inputs: 4 and 32 blocks
    assert only(found, "eager").kept_bytes == 4 * (100 * 1000 + 1000 + 1000 * 10 + 10)


def test_peak_memory_is_what_is_alive_at_once() -> None:
    x, hidden, out = torch.randn(64, 100), 64 * 1000 * 4, 64 * 10 * 4

    def peak(name: str, model: nn.Module) -> int:
        with torch.no_grad():
            variant = VARIANTS[name](model, x)
            variant.run(x)  # the first pass looks whether the model writes into its input
            return peak_bytes(variant, x)

    assert peak("eager", mlp()) == 2 * hidden
    assert peak("eager", mlp(inplace=True)) == hidden + out
    assert peak("packed_mxint8", mlp()) >= 1000 * 128 * 4  # the first weight, its last block filled up


def test_the_profiler_of_the_memory_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    x = torch.randn(2, 100)
    with torch.no_grad():
        peak_bytes(VARIANTS["eager"](mlp(), x), x)
    assert capfd.readouterr() == ("", "")


def test_kept_memory_counts_shared_memory_once_and_the_cache_of_quantised_weights() -> None:
    shared = nn.Linear(8, 8, bias=False)
    tied = nn.Linear(8, 8, bias=False)
    tied.weight = shared.weight
    model = nn.Sequential(shared, tied, nn.BatchNorm1d(8)).eval()
    floats = 4 * (64 + 4 * 8) + 8  # weight; scale, shift, mean, variance; an int64 counter
    assert kept_bytes(model) == floats
    instrument(shared, TensorCache()).set_slots({"weight": Integer(4, 2)})
    with torch.no_grad():
        model(torch.randn(2, 8))
    assert kept_bytes(model) == floats + 4 * 64 * 2  # the quantised weight, and a copy of its source


def test_fused_and_plain_attention_run_other_kernels_and_give_the_same() -> None:
    model, x = Attends().eval(), torch.randn(8, 2, 5, 16)
    assert "_scaled_dot_product" in kernels("fused_attention", model, x)
    plain = kernels("plain_attention", model, x)
    assert "_scaled_dot_product" not in plain
    assert "softmax" in plain
    found = benchmark(model, x, BenchmarkSettings(variants=("plain_attention", "fused_attention"), **FAST))
    assert only(found, "plain_attention").difference < 1e-5
    assert only(found, "fused_attention").difference == 0


@pytest.mark.parametrize("whole", [True, False])
def test_torchs_own_transformer_layers_have_both(whole: bool) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = (nn.Sequential(layer, nn.Flatten()) if whole else layer).eval()
    x = torch.randn(8, 5, 16)
    before = torch.backends.mha.get_fastpath_enabled()
    assert "_transformer_encoder_layer_fwd" in kernels("fused_attention", model, x)
    plain = kernels("plain_attention", model, x)
    assert "_transformer_encoder_layer_fwd" not in plain
    assert "_scaled_dot_product" not in plain
    assert torch.backends.mha.get_fastpath_enabled() is before


@pytest.mark.parametrize("own", ["sdpa", "eager"])
def test_transformers_of_huggingface_have_both_whatever_they_start_with(own: str) -> None:
    model = build("hf:bert", (12,), 2, config={**TINY_BERT, "attn_implementation": own}).eval()
    x = torch.randint(0, 50, (8, 12))
    assert "_scaled_dot_product" in kernels("fused_attention", model, x)
    assert "_scaled_dot_product" not in kernels("plain_attention", model, x)
    found = benchmark(model, x, BenchmarkSettings(variants=("plain_attention", "fused_attention"), **FAST))
    assert all(t.difference < 1e-5 for t in found.timings)
    assert model.config._attn_implementation == own


def test_attention_that_carries_formats_is_not_exchanged() -> None:
    model, x = Attends().eval(), torch.randn(8, 2, 5, 16)
    apply_assignment(model, {"scaled_dot_product_attention": {"data_in": Integer(8, 4)}})
    with pytest.raises(NotOffered, match="carry formats"):
        VARIANTS["plain_attention"](model, x)


def test_what_a_model_or_machine_lacks_is_listed_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_variants, "cpp_compiler", lambda: None)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(6)).eval()
    found = benchmark(model, torch.randn(4, 6), BenchmarkSettings(**FAST))
    assert [t.variant for t in found.timings] == ["eager"]
    assert "C++ compiler" in found.skipped["compile"]
    assert "no attention" in found.skipped["plain_attention"]
    assert "no attention" in found.skipped["fused_attention"]
    assert found.skipped["packed_mxint8"] == "there is no linear layer"
    with pytest.raises(BadInput, match=r"no linear layer.*packed_mxint8"):
        benchmark(model, torch.randn(4, 6), BenchmarkSettings(variants=("packed_mxint8",), **FAST))


def test_a_variant_that_fails_when_it_runs_is_listed_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(model: nn.Module, x: Tensor) -> Variant:
        def run(batch: Tensor) -> Tensor:
            raise RuntimeError("no kernel\nmore of it")

        return Variant(model, run)

    monkeypatch.setitem(VARIANTS, "compile", broken)
    wanted = BenchmarkSettings(variants=("compile", "packed_mxint8"), **FAST)
    found = benchmark(nn.Linear(4, 2), torch.randn(5, 4), wanted)
    assert [t.variant for t in found.timings] == ["eager", "packed_mxint8"]
    assert found.skipped == {"compile, 1 threads, batch 8": "RuntimeError: no kernel"}


@pytest.mark.slow
@pytest.mark.skipif(cpp_compiler() is None, reason="torch.compile needs a C++ compiler")
def test_compiling_is_the_first_pass_and_not_in_the_samples() -> None:
    model, x = mlp(), torch.randn(8, 100)
    found = benchmark(model, x, BenchmarkSettings(variants=("compile",), **FAST))
    compiled, eager = only(found, "compile"), only(found, "eager")
    assert found.skipped == {}
    assert compiled.first_seconds > 10 * compiled.median
    assert compiled.difference < 1e-5
    assert compiled.peak_bytes <= eager.peak_bytes
    assert compiled.kept_bytes == eager.kept_bytes


class Says(nn.Module):
    def __init__(self, what: Any) -> None:
        super().__init__()
        self.what = what

    def forward(self, x: Tensor) -> Any:
        if isinstance(self.what, Exception):
            raise self.what
        return self.what(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Says(ValueError("wrong size")), "does not run on these rows: ValueError: wrong size"),
        (Says(lambda x: {"logits": x}), "no tensor"),
        (Says(lambda x: x / 0), "NaN or infinity"),
    ],
)
def test_a_model_that_gives_nothing_to_compare_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        benchmark(model, torch.randn(5, 4), BenchmarkSettings(**FAST))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"variants": ("compiled",)}, "did you mean 'compile'"),
        ({"threads": (0,)}, "--threads"),
        ({"threads": (10_000,)}, "processors of this machine"),
        ({"batch_sizes": (-1,)}, "--batch-size"),
        ({"warmup": 0}, "--warmup"),
        ({"repeats": 0}, "--repeats"),
        ({"seconds": -1.0}, "--seconds"),
        ({"seconds": float("nan")}, "--seconds"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        BenchmarkSettings(**wrong)


def timing(variant: str, samples: tuple[float, ...], **other: Any) -> Timing:
    facts: dict[str, Any] = {
        "threads": 1, "batch_size": 10, "passes": 2, "ratio": 1.0, "first_seconds": 0.5,
        "kept_bytes": 4000, "peak_bytes": 2000, "difference": 0.0,
    }  # fmt: skip
    return Timing(variant, samples=samples, **{**facts, **other})


def test_median_and_quartiles_are_numpys() -> None:
    samples = (0.4, 0.1, 0.9, 0.2, 0.3, 0.35)
    one = timing("eager", samples)
    assert one.median == pytest.approx(np.median(samples))
    assert one.quartiles == pytest.approx(np.percentile(samples, [25, 75]))
    assert timing("eager", (0.3,)).quartiles == (0.3, 0.3)


def test_table_and_picture_show_every_timing(tmp_path: Path) -> None:
    timings = (timing("eager", (0.01, 0.02, 0.04)), timing("compile", (0.005,) * 3, threads=2, ratio=0.25))
    found = Benchmark("m", {"device": "cpu"}, timings, {})
    table, picture = write_benchmark(found, tmp_path / "new")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == ["eager", "compile"]
    assert float(rows[0]["median_seconds"]) == 0.02
    assert float(rows[0]["rows_per_second"]) == 500
    assert float(rows[1]["ratio_to_eager"]) == 0.25
    assert picture.read_bytes().startswith(b"\x89PNG")
    left, right = drawn(draw_benchmark(found)).axes
    assert [bar.get_width() for bar in left.containers[1]] == pytest.approx([2000, 500])  # µs a row
    assert [text.get_text() for text in left.get_yticklabels()] == ["eager, 1 thread", "compile, 2 threads"]
    assert "[µs]" in left.get_xlabel()
    assert "[MB]" in right.get_xlabel()
    assert [bar.get_width() for bar in right.containers[0]] == pytest.approx([0.004, 0.004])
    assert benchmark_rows(found)[1]["Median (ms)"] == pytest.approx(5)
    assert "5" in draw_benchmark(found).reading
