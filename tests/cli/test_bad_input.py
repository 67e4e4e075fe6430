"""Bad input is one clear error that names file, line, key, found, allowed; nothing is written, nothing lost."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import paretobit as pb
from paretobit.cli.main import app
from paretobit.errors import BadInput, ParetoBitError
from paretobit.models import build
from paretobit.models.checkpoint import save_weights
from paretobit.registry import Registry

LAB = """\
[model]
name = "jsc-tiny"
[data]
name = "digits"
[train]
max_epochs = 1
learning_rate = 1e-2
[search]
maximize = "accuracy"
minimize = "bitops"
[search.space]
by = "type"
[search.space.seed.linear]
name = "integer"
data_in_width = [4, 8]
weight = [{ width = 8, frac_width = 6 }, { width = 4, frac_width = 2 }]
"""
OBJECTIVES = 'maximize = "accuracy"\nminimize = "bitops"\n'
WHOLE = "weight = [{ width = 8, frac_width = 6 }, { width = 4, frac_width = 2 }]"
SEED = "search.space.seed"
SEARCH = ("search", "-c", "lab.toml")
TRAIN = ("train", "jsc-tiny", "digits", "--max-epochs", "1")
TRANSFORM = ("transform", "jsc-tiny", "digits")

MODELS = """
from torch import nn

def raises():
    raise RuntimeError("no luck")

def exits():
    raise SystemExit(0)

def nonsense():
    return 42

def needs(depth):
    return nn.Linear(depth, 10)

def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(3, 10))

def few_classes():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

def nothing_to_train():
    return nn.Sequential(nn.Flatten(), nn.ReLU())

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        return self.linear(x.flatten(1)), None
"""


class Runs:
    """A pickle that runs a command when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder, with its contents."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def said(result: Result) -> str:
    """Standard error on one line, without the box that the shell's parser draws."""
    return " ".join(result.stderr.replace("│", " ").split())


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that can be bad, a trained model and a finished search."""
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "lab.toml").write_text(LAB)
    _write_data(folder)
    _write_models(folder)
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("mine")
    for arguments in (
        ["search", "-c", folder / "lab.toml", "--load", folder / "tiny.safetensors", "-o", folder / "searched"],
        ["train", "jsc-tiny", "digits", "--max-epochs", "1", "-o", folder / "trained"],
    ):
        done = call(*arguments, "-q")
        assert done.exit_code == 0, done.output
    shutil.copytree(folder / "searched", folder / "corrupt")
    for leftover in (folder / "corrupt").glob("study.db*"):
        leftover.unlink()
    (folder / "corrupt" / "study.db").write_bytes(b"no database at all, but long enough " * 99)
    shutil.copytree(folder / "trained", folder / "damaged")
    (folder / "damaged" / "best" / "model.json").write_text("{")
    shutil.copytree(folder / "trained", folder / "sourceless")
    (folder / "sourceless" / "best" / "model.json").write_text('{"version": 1, "source": {}, "layers": {}}')
    return folder


def _write_data(folder: Path) -> None:
    x, y = np.random.default_rng(0).random((60, 16), dtype=np.float32), np.arange(60) % 5
    nan, inf = x.copy(), x.copy()
    nan[3, 2], inf[5, 1] = np.nan, np.inf
    np.savez(folder / "good.npz", X=x, y=y)
    np.savez(folder / "nan.npz", X=nan, y=y)
    np.savez(folder / "inf.npz", X=inf, y=y)
    np.savez(folder / "no_rows.npz", X=x[:0], y=y[:0])
    np.savez(folder / "no_test_rows.npz", X=x, y=y, X_test=x[:0], y_test=y[:0])
    np.savez(folder / "one_class.npz", X=x, y=0 * y)
    np.savez(folder / "uneven.npz", X=x, y=y[:50])
    np.savez(folder / "other_keys.npz", data=x, target=y)
    (folder / "text.npz").write_text("hello")
    (folder / "cell.csv").write_text("a,b,label\n1,2,x\n3,oops,y\n")
    (folder / "ragged.csv").write_text("a,b,label\n1,2,x\n3,y\n")
    (folder / "nan.csv").write_text("a,b,label\n1,2,x\n\n3,nan,y\n")


def _write_models(folder: Path) -> None:
    (folder / "models.py").write_text(MODELS)
    (folder / "unfinished.py").write_text("def f(:\n")
    (folder / "lonely.py").write_text("import a_module_that_is_not_there\n")
    (folder / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    save_weights(build("jsc-tiny", (64,), 10), folder / "tiny.safetensors")
    save_weights(build("jsc-custom", (64,), 10), folder / "custom.safetensors")
    whole = (folder / "tiny.safetensors").read_bytes()
    (folder / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.pt").write_bytes(bytes(range(256)))
    (folder / "weights.bin").write_bytes(b"x")
    torch.save([1, 2], folder / "list.pt")
    torch.save({"epoch": 3}, folder / "no_tensors.pt")
    (folder / "runs_code.pt").write_bytes(pickle.dumps(Runs(), protocol=2))


@pytest.fixture
def here(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(shelf)
    return shelf


def refused(here: Path, arguments: tuple[str, ...], words: tuple[str, ...], exit_code: int = 2) -> str:
    """The message of a command that must be refused: it holds all the words, and nothing has changed."""
    before = tree(here)
    result = call(*arguments)
    message = said(result)
    assert result.exit_code == exit_code, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in message
    assert message.count("error: ") == 1
    assert [word for word in words if word not in message] == [], message
    assert tree(here) == before
    return message


def edit(name: str, old: str, new: str, *words: str) -> Any:
    """A line of the file replaced: `words` must appear."""
    assert LAB.count(old) == 1
    return pytest.param(LAB.replace(old, new), words, id=name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        edit("broken TOML", 'by = "type"', 'by = "type', "not valid TOML", "bad.toml:12"),
        edit("a key twice", 'by = "type"', 'by = "type"\nby = "name"', "not valid TOML", "bad.toml:13"),
        edit("unknown section", "[train]", "[trian]", "bad.toml:5", "'trian'", "did you mean 'train'"),
        edit("key of model", 'name = "jsc-tiny"', 'nmae = "x"', "bad.toml:2, model.nmae", "did you mean 'name'"),
        edit("key of data", 'name = "digits"', "limmit = 9", "bad.toml:4, data.limmit", "did you mean 'limit'"),
        edit("key of train", "max_epochs", "max_epoch", "bad.toml:6, train.max_epoch", "did you mean 'max_epochs'"),
        edit("key of search", "minimize", "minimise", "bad.toml:10, search.minimise", "did you mean 'minimize'"),
        edit("key of space", 'by = "type"', 'bye = "type"', "bad.toml:12, search.space.bye", "did you mean 'by'"),
        edit("key of entry", WHOLE, "wieght = []", f"bad.toml:16, {SEED}.linear.wieght", "did you mean 'weight'"),
        edit("parameter", "data_in_width", "data_in_widht", f"{SEED}.linear.data_in_widht", "'data_in_width'"),
        edit(
            "key of runner",
            "[search.space]",
            "[search.runners]\nbasic_computation = {}\nbasic_evaluation.num_sample = 4\n[search.space]",
            "bad.toml:13, search.runners.basic_evaluation.num_sample",
            "did you mean 'num_samples'",
        ),
        edit(
            "key of strategy",
            "[search.space]",
            '[search.strategy]\nname = "brute_force"\nordr = "nested"\n[search.space]',
            "bad.toml:13, search.strategy.ordr",
            "did you mean 'order'",
        ),
        edit(
            "wrong type", "max_epochs = 1", 'max_epochs = "many"', "bad.toml:6, train.max_epochs", "integer", "'many'"
        ),
        edit(
            "out of range", "max_epochs = 1", "max_epochs = -1", "bad.toml:6", "greater than or equal to 0", "found -1"
        ),
        edit("not a table", '[model]\nname = "jsc-tiny"', "model = 3", "bad.toml:1, model", "not a table", "found 3"),
        edit("model", '"jsc-tiny"', '"jsc-tinny"', "bad.toml:2, model.name", "did you mean 'jsc-tiny'"),
        edit("data source", '"digits"', '"digitz"', "bad.toml:4, data.name", "did you mean 'digits'"),
        edit("checkpoint", "[data]", 'load = "gone.pt"\n[data]', "bad.toml:3, model.load", "no such file", "'gone.pt'"),
        edit(
            "device",
            "max_epochs = 1",
            'device = "tpu"',
            "bad.toml:6, train.device",
            "found 'tpu'",
            "cpu, cuda, gpu, auto",
        ),
        edit("optimiser", "max_epochs = 1", 'optimizer = "adm"', "bad.toml:6, train.optimizer", "did you mean 'adam'"),
        edit(
            "by",
            'by = "type"',
            'by = "typ"',
            "bad.toml:12, search.space.by",
            "type, name, regex",
            "did you mean 'type'",
        ),
        edit("type of layer", "seed.linear]", "seed.lineer]", f"bad.toml:13, {SEED}.lineer", "did you mean 'linear'"),
        edit("type that no layer has", "seed.linear]", "seed.conv2d]", "has this type", "batch_norm1d, linear, relu"),
        edit("format", '"integer"', '"intger"', f"bad.toml:14, {SEED}.linear.name", "did you mean 'integer'"),
        edit("parameter of format", "frac_width = 2", "fracwidth = 2", "bad.toml:16", "did you mean 'frac_width'"),
        edit(
            "negative width",
            "width = 4, frac",
            "width = -4, frac",
            f"bad.toml:16, {SEED}.linear.weight.width",
            "found -4",
            "1 to 64",
        ),
        edit(
            "negative choice", "[4, 8]", "[4, -8]", f"bad.toml:15, {SEED}.linear.data_in_width", "found -8", "1 to 64"
        ),
        edit("a list in a list", "[4, 8]", "[[4]]", "bad.toml:15", "width is not an integer", "found [4]"),
        edit(
            "no width",
            "data_in_width = [4, 8]",
            "data_in_frac_width = [4]",
            f"{SEED}.linear",
            "needs the parameter 'width'",
        ),
        edit("no choice", "[4, 8]", "[]", "bad.toml:15", "at least one option", "found []"),
        edit("a choice twice", "[4, 8]", "[4, 8, 4]", "bad.toml:15", "listed twice", "found 4"),
        edit("a slot twice", "data_in_width", "weight_width", f"{SEED}.linear.weight", "both whole and by parameter"),
        edit(
            "no seed",
            LAB[LAB.index("[search.space.seed") :],
            "",
            "bad.toml:11, search.space.seed",
            "missing key",
            "Key to entry",
        ),
        edit(
            "metric",
            '"accuracy"',
            '"acuracy"',
            "bad.toml:9, search.maximize",
            "unknown metric",
            "did you mean 'accuracy'",
        ),
        edit("metric without runner", '"accuracy"', '"latency"', "bad.toml:9, search.maximize", "add 'latency'"),
        edit(
            "maximised and minimised",
            '"bitops"',
            '"accuracy"',
            "bad.toml",
            "search.maximize",
            "an objective twice",
            "found 'accuracy'",
        ),
        edit("no objective", OBJECTIVES, "", "bad.toml:8, search.maximize", "no objective"),
        edit(
            "summed directions disagree",
            OBJECTIVES,
            'sum_scaled_metrics = true\n[search.metrics]\naccuracy.scale = 1\nbitops.direction = "minimize"\n',
            "bad.toml:12, search.metrics.bitops.direction",
            "found 'minimize'; allowed: maximize",
        ),
        edit(
            "metrics beside maximize",
            "[search.space]",
            "[search.metrics]\naccuracy.scale = 1\n[search.space]",
            "bad.toml:11, search.metrics",
            "given twice",
        ),
        edit(
            "sum of nothing", "[search.space]", "sum_scaled_metrics = true\n[search.space]", "needs a table of metrics"
        ),
        edit(
            "scale",
            OBJECTIVES,
            "[search.metrics]\naccuracy.scale = nan\n",
            "bad.toml:10, search.metrics.accuracy.scale",
            "finite",
            "found nan",
        ),
        edit(
            "constraint",
            "[search.space]",
            'subject_to = "accuracy > much"\n[search.space]',
            "bad.toml:11, search.subject_to",
            "'accuracy > much'",
            "METRIC (<=|>=|<|>)",
        ),
        edit(
            "metric of constraint",
            "[search.space]",
            'subject_to = "acuracy > 0.5"\n[search.space]',
            "bad.toml:11, search.subject_to",
            "did you mean 'accuracy'",
        ),
        edit(
            "question",
            "[search.space]",
            'best = "least bitops"\n[search.space]',
            "bad.toml:11, search.best",
            "found 'least bitops'",
            "(min|max) METRIC",
        ),
        edit(
            "metric of question",
            "[search.space]",
            'best = "min bitopps"\n[search.space]',
            "bad.toml:11, search.best",
            "did you mean 'bitops'",
        ),
        edit(
            "strategy",
            "[search.space]",
            'strategy = "bruteforc"\n[search.space]',
            "bad.toml:11, search.strategy.name",
            "brute_force",
            "did you mean",
        ),
        edit(
            "runner",
            "[search.space]",
            "[search.runners.latancy]\n[search.space]",
            "bad.toml:11, search.runners.latancy",
            "did you mean 'latency'",
        ),
        edit(
            "engine",
            "[search.space]",
            'workers = 2\nengine = "serial"\n[search.space]',
            "bad.toml:12, search.engine",
            "several workers",
            "allowed: processes",
        ),
        edit(
            "unknown engine",
            "[search.space]",
            'engine = "threads"\n[search.space]',
            "bad.toml:11, search.engine",
            "serial, processes",
        ),
        edit(
            "endless trial",
            "[search.space]",
            "trial_timeout = inf\n[search.space]",
            "bad.toml:11, search.trial_timeout",
            "finite",
        ),
        edit(
            "fractions",
            "[train]",
            "val_fraction = 0.6\ntest_fraction = 0.5\n[train]",
            "bad.toml:5, data.val_fraction",
            "found 1.1",
            "a sum below 1",
        ),
        edit(
            "another task", "[model]", 'task = "nlp"\n[model]', "bad.toml:1, task", "found 'nlp'", "cls, classification"
        ),
        edit(
            "another load_type",
            "[model]",
            'load_type = "xyz"\n[model]',
            "bad.toml:1, load_type",
            "found 'xyz'",
            "pl, pt, mz",
        ),
        edit(
            "old key beside its new name",
            "[model]",
            "max_epochs = 3\n[model]",
            "bad.toml:1, max_epochs",
            "said twice",
            "'train.max_epochs'",
            "found 3",
        ),
        edit(
            "old table beside its new name",
            "[search.space.seed.linear]",
            "[search.search_space.seed.linear]\nweight_width = 4\n[search.space.seed.linear]",
            "bad.toml:13, search.search_space.seed.linear",
            "said twice",
        ),
        edit(
            "key of an old table",
            "[search.space]",
            "[search.strategy.setup]\nn_jobbs = 2\n[search.space]",
            "bad.toml:12, search.strategy.setup.n_jobbs",
            "did you mean 'n_jobs'",
        ),
    ],
)
def test_a_bad_line_of_a_file_is_named(
    here: Path, request: pytest.FixtureRequest, text: str, words: tuple[str, ...]
) -> None:
    (here / "bad.toml").write_text(text)
    request.addfinalizer((here / "bad.toml").unlink)
    refused(here, ("search", "-c", "bad.toml"), words)


def test_a_file_that_is_no_text_is_named_with_the_line(here: Path, request: pytest.FixtureRequest) -> None:
    (here / "latin.toml").write_bytes(b'[model]\nname = "caf\xe9"\n')
    request.addfinalizer((here / "latin.toml").unlink)
    refused(here, ("search", "-c", "latin.toml"), ("not UTF-8 text", "latin.toml:2"))


def sets(*assignments: str) -> tuple[str, ...]:
    """The search with keys overridden."""
    return (*SEARCH, *(part for assignment in assignments for part in ("--set", assignment)))


def layers(by: str, seed: str) -> tuple[str, ...]:
    return sets(f"search.space.by={by}", f"{SEED}={seed}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("search", "-c", "gone.toml"), ("no such file", "'gone.toml'"), id="missing"),
        pytest.param(("search", "-c", "empty"), ("cannot read", "Is a directory", "'empty'"), id="a directory"),
        pytest.param(("search", "jsc-tiny", "digits"), ("nothing may vary", "search.space"), id="nothing varies"),
        pytest.param(("plan", "jsc-tiny", "digits"), ("nothing may vary", "search.space"), id="nothing to plan"),
        pytest.param(sets("nonsense"), ("not an assignment (--set)", "'nonsense'", "key.path=value"), id="--set"),
        pytest.param(sets("train.lr=[1,"), ("not a TOML value (--set)", "'train.lr=[1,'"), id="--set half a list"),
        pytest.param(sets("train.max_epochs.more=3"), ("lab.toml:6, train.max_epochs", "found 1"), id="--set through"),
        pytest.param(sets("search.space=quantize"), ("search.space", "a table", "'quantize'"), id="--set no table"),
        pytest.param((*SEARCH, "--seed", "-1"), ("(seed)", "greater than or equal to 0", "-1"), id="seed"),
        pytest.param((*SEARCH, "--trials", "0"), ("search.n_trials", "1 or more", "found 0"), id="zero trials"),
        pytest.param((*SEARCH, "--trials", "-3"), ("search.n_trials", "found -3"), id="negative trials"),
        pytest.param((*SEARCH, "--timeout", "nan"), ("search.timeout", "found nan"), id="timeout"),
        pytest.param((*SEARCH, "--workers", "0"), ("search.workers", "found 0"), id="zero workers"),
        pytest.param((*SEARCH, "--strategy", "tp"), ("search.strategy.name", "did you mean 'tpe'"), id="--strategy"),
        pytest.param((*SEARCH, "--task", "nlp"), ("(task)", "'nlp'", "cls, classification"), id="--task"),
        pytest.param((*SEARCH, "--load-type", "h5"), ("(load_type)", "'h5'", "pl, pt, mz"), id="--load-type"),
        pytest.param((*SEARCH, "--accelerator", "tpu"), ("train.device", "'tpu'", "cpu"), id="--accelerator"),
        pytest.param((*SEARCH, "--extend"), ("(--extend)", "--resume"), id="--extend alone"),
        pytest.param((*SEARCH, "-o", "full"), ("(--out)", "not empty", "'full'"), id="folder in use"),
        pytest.param((*SEARCH, "-o", "lab.toml"), ("(--out)", "is a file"), id="folder is a file"),
        pytest.param((*SEARCH, "--warm-start", "gone"), ("no study here", "'gone'"), id="--warm-start"),
        pytest.param(
            layers("name", "{seq_blocks_22 = {weight_width = [4]}}"),
            (f"{SEED}.seq_blocks_22", "this name", "did you mean 'seq_blocks_2'"),
            id="name of layer",
        ),
        pytest.param(
            layers("regex", "{'zzz.*' = {weight_width = [4]}}"),
            ("this pattern", "'zzz.*'", "allowed: seq_blocks_0, seq_blocks_1"),
            id="regex matches nothing",
        ),
        pytest.param(
            layers("regex", "{'seq_(.*' = {weight_width = [4]}}"),
            ("not a regular expression", "'seq_(.*'"),
            id="regex is broken",
        ),
        pytest.param(
            layers("regex", "{seq_blocks_2 = {weight_width = [4]}, 'seq_.*2' = {weight_width = [4]}}"),
            ("'seq_blocks_2' is chosen twice", "['seq_blocks_2', 'seq_.*2']"),
            id="layer chosen twice",
        ),
        pytest.param(
            layers("type", "{relu = {weight_width = [4]}}"),
            (f"{SEED}.relu", "no slot 'weight'", "allowed: data_in"),
            id="slot that the layer lacks",
        ),
        pytest.param(
            (*layers("type", "{dropout = {data_in_width = [4]}}"), "--set", "model.name=jsc-custom"),
            (f"{SEED}.dropout", "'seq_blocks_5' is a Dropout", "cannot be quantised"),
            id="layer that cannot be quantised",
        ),
        pytest.param(
            sets("search.space.name=quantise"),
            ("search.space.name", "unknown search space", "did you mean 'quantize'"),
            id="space",
        ),
        pytest.param(
            sets("search.strategy.name=optuna", "search.strategy.sampler=tpee"),
            ("search.strategy.sampler", "'tpee'", "did you mean 'tpe'"),
            id="sampler",
        ),
        pytest.param(
            sets("search.strategy.name=tpe", "search.strategy.sampler_settings.n_startup=3"),
            ("sampler_settings.n_startup", "TPESampler", "did you mean 'n_startup_trials'"),
            id="setting of sampler",
        ),
        pytest.param(
            sets("search.strategy.name=tpe", "search.strategy.sampler_settings.n_startup_trials=lots"),
            ("sampler_settings.n_startup_trials", "found 'lots'", "allowed: int"),
            id="type of a sampler's setting",
        ),
        pytest.param(
            sets("search.strategy.name=nsgaii", "search.strategy.sampler_settings.population_size=1"),
            ("sampler_settings", "nsgaii", "greater than or equal to 2"),
            id="value of a sampler's setting",
        ),
        pytest.param(
            (*SEARCH, "--strategy", "cmaes"),
            ("'cmaes' cannot use the knob 'seq_blocks_2.weight'", "not numbers", "allowed: tpe, random"),
            id="cmaes with whole formats",
        ),
        pytest.param(
            (*sets(f"{SEED}.linear={{weight_width = [4, 8]}}"), "--strategy", "cmaes"),
            ("'cmaes' takes one objective", "allowed: tpe"),
            id="cmaes with two objectives",
        ),
        *(
            pytest.param(
                (*sets(f"{SEED}.linear={{name = ['integer', 'NA'], weight_width = [4, 8]}}"), "--strategy", name),
                (f"'{name}' cannot use the knob 'seq_blocks_2.name'", "decides which others", "allowed: tpe"),
                id=f"{name} with conditional knobs",
            )
            for name in ("grid", "gp")
        ),
        pytest.param(("train", "jsc-tiny", "digitz"), ("data.name", "did you mean 'digits'"), id="data to train on"),
        pytest.param(
            ("train", "jsc-tiny", "parquet:x"), ("data.name", "'parquet'", "allowed: digits, npz"), id="source"
        ),
        pytest.param(
            (*TRAIN, "--set", "data.limit=5"), ("data.limit", "5 of 1797", "30 to 1797 rows"), id="too few rows"
        ),
        pytest.param((*TRAIN, "--batch-size", "1"), ("train.batch_size", "BatchNorm", "2 or more"), id="batch of one"),
        pytest.param((*TRAIN, "--accelerator", "meta"), ("train.device", "'meta'"), id="device to train on"),
        pytest.param((*TRAIN, "--set", "train.optimizer=muon"), ("optimizer_settings", "Muon refuses"), id="muon"),
        pytest.param((*TRAIN, "-o", "full"), ("(--out)", "not empty"), id="training into a folder in use"),
        pytest.param(TRANSFORM, ("no passes", "(passes)"), id="no passes"),
        pytest.param(
            (*TRANSFORM, "--set", "passes.quantise.by=type"), ("passes.quantise", "did you mean 'quantize'"), id="pass"
        ),
        pytest.param(
            (*TRANSFORM, "--set", "passes.quantize.linear.weight_width=[4, 8]"),
            ("passes.quantize.linear.weight_width", "not an integer", "found [4, 8]", "1 to 64"),
            id="a list where a pass needs a number",
        ),
        pytest.param(
            (*TRANSFORM, "--set", "passes.quantize.linear.name=['integer']"),
            ("passes.quantize.linear.name", "found ['integer']"),
            id="a list where a pass needs a name",
        ),
        pytest.param(
            (*TRANSFORM, "--set", "passes.quantize.default.weight_width=-8"),
            ("passes.quantize.default.weight_width", "found -8", "1 to 64"),
            id="default of a pass",
        ),
        pytest.param(
            (*TRANSFORM, "--set", "passes.quantize.lineer.weight_width=8"),
            ("passes.quantize.lineer", "did you mean 'linear'"),
            id="layer of a pass",
        ),
        pytest.param(
            (*TRANSFORM, "--set", "passes.quantize.by=typ", "--set", "passes.quantize.linear.weight_width=8"),
            ("passes.quantize.by", "type, name, regex", "did you mean 'type'"),
            id="by of a pass",
        ),
        pytest.param(
            (*TRANSFORM, "--set", "passes.quantize.by=type"), ("passes.quantize", "no layers"), id="idle pass"
        ),
        pytest.param(("plan", "-c", "lab.toml", "--trials", "0"), ("search.n_trials", "found 0"), id="plan no trials"),
        pytest.param(
            ("plan", "-c", "lab.toml", "--set", "search.maximize=acuracy"),
            ("search.maximize", "did you mean 'accuracy'"),
            id="plan an unknown metric",
        ),
        pytest.param(("show", "gone"), ("no study here", "'gone'", "a run folder"), id="show nothing"),
        pytest.param(("show", "empty"), ("no study here", "'empty'"), id="show a folder without study"),
        pytest.param(("show", "empty", "--layers"), ("no saved model here", "'empty'"), id="layers of nothing"),
        pytest.param(("show", "searched", "--trial", "99"), ("(trial)", "found 99", "0 to 3"), id="trial"),
        pytest.param(("show", "searched", "--trial", "-1"), ("(trial)", "found -1", "0 to 3"), id="negative trial"),
        pytest.param(
            ("show", "searched", "--best", "min bitops s.t. accuracy >= 2"),
            ("no trial satisfies it (4 feasible trials)", "accuracy >= 2"),
            id="question that nobody satisfies",
        ),
        pytest.param(
            ("show", "searched", "--best", "least bitops"), ("not a question", "(min|max) METRIC"), id="no question"
        ),
        pytest.param(
            ("show", "searched", "--best", "min bitopps"),
            ("(question)", "did you mean 'bitops'"),
            id="metric of --best",
        ),
        pytest.param(("test", "gone"), ("no weights to test", "'gone'", "a model with --load"), id="test nothing"),
        pytest.param(("test", "empty"), ("no saved model here", "'empty'"), id="test a folder without model"),
        pytest.param(("test", "damaged"), ("not a saved model", "damaged/best/model.json"), id="damaged page"),
        pytest.param(
            ("test", "sourceless"), ("model.json, source", "input_shape, name, num_classes"), id="page without source"
        ),
        pytest.param(("test", "trained", "--split", "tset"), ("(split)", "did you mean 'test'"), id="split"),
        pytest.param(
            ("test", "trained", "npz:good.npz"), ("does not run on this data", "(2, 16)"), id="test on other data"
        ),
        pytest.param(
            ("test", "trained", "--load", "tiny.safetensors"), ("(--load)", "weights of its own"), id="weights twice"
        ),
        pytest.param(
            ("test", "jsc-tiny", "digits", "--load", "custom.safetensors"),
            ("do not fit the model", "custom.safetensors", "unexpected: seq_blocks.10.bias 10"),
            id="test weights of another model",
        ),
        pytest.param(
            ("inspect", "jsc-tiny", "--input-shape", "3xx"), ("(--input-shape)", "'3xx'", "16 or 3x32x32"), id="shape"
        ),
        pytest.param(("inspect", "jsc-tiny", "--input-shape", "0"), ("(--input-shape)", "'0'"), id="shape of nothing"),
        pytest.param(("inspect", "jsc-tiny", "--input-shape", "9" * 20), ("too large", "values"), id="shape too large"),
        pytest.param(
            ("inspect", "digits-cnn", "--input-shape", "16"),
            ("'digits-cnn'", "found (16,)", "(channels, height, width)"),
            id="features for an image model",
        ),
        pytest.param(
            ("inspect", "jsc-tiny", "--input-shape", "16", "--classes", "0"), ("(--classes)", "found 0"), id="no class"
        ),
        pytest.param(("inspect", "jsc-tiny", "--convention", "lab9"), ("'lab9'", "standard, lab2"), id="convention"),
        pytest.param(("inspect", "jsc-tiny", "--batch", "0"), ("(--batch)", "found 0"), id="batch of nothing"),
        pytest.param(("inspect", "jsc-tinny"), ("model.name", "did you mean 'jsc-tiny'"), id="model to inspect"),
        pytest.param(("list", "format"), ("(KIND)", "did you mean 'formats'"), id="list"),
    ],
)
def test_a_bad_command_line_is_refused(here: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(here, arguments, words)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        pytest.param((*SEARCH, "--trials", "many"), "Invalid value for '--trials'", id="not a number"),
        pytest.param((*SEARCH, "--trails", "3"), "No such option", id="unknown flag"),
        pytest.param(("serch",), "No such command 'serch'", id="unknown command"),
        pytest.param(("show",), "Missing argument", id="missing argument"),
    ],
)
def test_what_the_shell_got_wrong_is_said_with_the_usage(here: Path, arguments: tuple[str, ...], word: str) -> None:
    before = tree(here)
    result = call(*arguments)
    assert result.exit_code == 2
    assert word in said(result)
    assert "Usage: paretobit" in said(result)
    assert tree(here) == before


def test_a_value_from_the_command_line_is_not_laid_to_the_file(here: Path) -> None:
    message = refused(here, sets("train.max_epochs=-3"), ("(train.max_epochs)", "found -3"))
    assert "lab.toml" not in message


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("npz:nan.npz", ("nan.npz", "NaN or infinity", "row 3, column 2")),
        ("npz:inf.npz", ("inf.npz", "NaN or infinity", "row 5, column 1")),
        ("npz:no_rows.npz", ("no_rows.npz", "the train set is empty", "(0, 16)")),
        ("npz:no_test_rows.npz", ("no_test_rows.npz", "the test set is empty")),
        ("npz:one_class.npz", ("one_class.npz, labels", "a single class", "[0]", "two or more")),
        ("npz:uneven.npz", ("uneven.npz", "rows of x and y differ", "60 and 50")),
        ("npz:other_keys.npz", ("other_keys.npz", "missing x, y", "['data', 'target']", "X and y")),
        ("npz:text.npz", ("text.npz", "not an npz archive")),
        ("npz:gone.npz", ("data.name", "no such file", "'gone.npz'")),
        ("npz", ("data.name", "needs a file", "npz:PATH")),
        ("csv:cell.csv", ("cell.csv:3, column 'b'", "not a number", "found 'oops'")),
        ("csv:ragged.csv", ("ragged.csv:3", "found 2; allowed: 3")),
        ("csv:nan.csv", ("nan.csv:4, column 'b'", "NaN or infinity", "found nan")),
        ("csv:empty", ("data.name", "not a file", "'empty'")),
        ("models.py:raises", ("models.py:raises", "RuntimeError: no luck")),
        ("models.py:nonsense", ("models.py:nonsense", "found 'int'", "(x, y)")),
    ],
)
def test_bad_data_is_refused_before_training(here: Path, name: str, words: tuple[str, ...]) -> None:
    refused(here, ("train", "jsc-tiny", name, "--max-epochs", "1"), words)


@pytest.mark.parametrize("command", [TRAIN[:1], SEARCH])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("models.py:raises", ("models.py:raises", "RuntimeError: no luck")),
        ("models.py:exits", ("models.py:exits", "SystemExit")),
        ("models.py:nonsense", ("models.py:nonsense", "found 'int'", "nn.Module")),
        ("models.py:needs", ("models.py:needs", "['depth']", "input_shape, in_features, num_classes")),
        ("models.py:raise", ("models.py", "no such name", "did you mean 'raises'")),
        ("models.py:narrow", ("the model does not run on", "shapes cannot be multiplied", "(2, 1, 8, 8)")),
        ("models.py:few_classes", ("labels outside the model's classes", "0 to 9", "0 to 2")),
        ("models.py:Pair", ("needs a classifier", "found 'tuple'", "logits of shape (rows, classes)")),
        ("gone.py:make", ("no such file", "'gone.py'")),
        ("lonely.py:make", ("lonely.py", "does not import", "a_module_that_is_not_there")),
        ("unfinished.py:make", ("unfinished.py", "SyntaxError")),
        ("leaving.py:make", ("leaving.py", "SystemExit")),
    ],
)
def test_a_bad_model_is_refused_before_training(
    here: Path, command: tuple[str, ...], name: str, words: tuple[str, ...]
) -> None:
    refused(here, (*command, name, "digits"), words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train", "models.py:nothing_to_train", "digits"), ("no parameter to train",)),
        (("train", "digits-cnn", "npz:good.npz"), ("'digits-cnn'", "(16,)", "(channels, height, width)")),
        (
            (*TRANSFORM[:1], "models.py:few_classes", "digits", "--set", "passes.quantize.linear.weight_width=8"),
            ("labels outside the model's classes", "0 to 2"),
        ),
    ],
    ids=["nothing to train", "image model on features", "too few classes to transform"],
)
def test_a_model_that_does_not_fit_the_data_is_refused(
    here: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(here, arguments, words)


@pytest.mark.parametrize("command", [TRAIN, SEARCH])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone.pt", ("model.load", "no such file", "'gone.pt'")),
        ("empty", ("model.load", "no weights in the folder", "'empty'")),
        ("noise.pt", ("noise.pt", "damaged, or is not one")),
        ("half.safetensors", ("half.safetensors", "not a whole safetensors file")),
        ("list.pt", ("list.pt", "not a checkpoint", "a state dict")),
        ("no_tensors.pt", ("no_tensors.pt", "no tensors")),
        ("weights.bin", ("weights.bin", "'.bin'", ".safetensors, .pt")),
        ("custom.safetensors", ("custom.safetensors", "seq_blocks.10.weight 10x16", "the model's is 10x64")),
        ("runs_code.pt", ("runs_code.pt", "would run code", "system")),
    ],
)
def test_a_bad_checkpoint_is_refused(here: Path, command: tuple[str, ...], name: str, words: tuple[str, ...]) -> None:
    refused(here, (*command, "--load", name), words)
    assert not (here / "pwned").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "corrupt"), ("corrupt/study.db", "not a database")),
        (("search", "-o", "corrupt", "--resume"), ("corrupt/study.db", "not a database")),
        (("search", "-o", "searched", "--resume", "--set", "search.maximize=loss"), ("another search", "objectives")),
        (
            ("search", "-o", "searched", "--resume", "--set", f"{SEED}.linear.data_in_width=[2, 3]"),
            ("another search", "space", "--extend"),
        ),
        ((*SEARCH, "-o", "lab.toml/run"), ("cannot write to the run folder lab.toml/run",)),
    ],
    ids=["show corrupt", "resume corrupt", "other objectives", "other space", "folder below a file"],
)
def test_a_study_that_cannot_be_used_is_exit_code_1_and_nothing_is_lost(
    here: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    refused(here, arguments, words, exit_code=1)


# The same from Python


X, Y = torch.rand(30, 6, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
WITH_NAN = X.clone().index_fill_(0, torch.tensor([0]), float("nan"))


def raises(model: nn.Module) -> Mapping[str, float]:
    raise RuntimeError("no luck")


def measuring(result: Any) -> dict[str, Any]:
    return {"val": None, "evaluate": lambda model: result, "maximize": "score", "example": X[:1]}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param({"val": (X, Y + 3)}, ("labels outside the model's classes", "3 to 5", "0 to 2"), id="labels"),
        pytest.param({"val": (X, Y - 1)}, ("labels outside the model's classes", "-1 to 1"), id="negative labels"),
        pytest.param({"val": (X, Y.float())}, ("class labels", "float32", "evaluate="), id="float labels"),
        pytest.param({"val": (X, Y[:9])}, ("val", "differ in length", "[30, 9]"), id="lengths"),
        pytest.param({"val": (X[:0], Y[:0])}, ("val", "empty split"), id="empty split"),
        pytest.param({"val": (WITH_NAN, Y)}, ("val", "NaN or infinite", "6 values"), id="NaN"),
        pytest.param({"train": (WITH_NAN, Y)}, ("train", "NaN or infinite"), id="NaN in train"),
        pytest.param({"val": X}, ("val", "not a pair", "'Tensor'"), id="no labels"),
        pytest.param({"val": (X, ["a"] * 30)}, ("val", "not numbers"), id="labels of text"),
        pytest.param({"val": (1, 2)}, ("val", "no rows"), id="no rows"),
        pytest.param({"val": (torch.rand(30, 7), Y)}, ("does not run", "(2, 7)"), id="shape"),
        pytest.param({"val": None}, ("nothing to measure with", "evaluate=function"), id="nothing to measure"),
        pytest.param({"model": 3}, ("model", "found 3", "nn.Module"), id="no model"),
        pytest.param({"maximize": ()}, ("no objective",), id="no objective"),
        pytest.param({"maximize": "acuracy"}, ("did you mean 'accuracy'",), id="metric"),
        pytest.param({"minimize": "accuracy"}, ("an objective twice", "'accuracy'"), id="both ways"),
        pytest.param({"subject_to": "accuracy > lots"}, ("not a constraint", "METRIC"), id="constraint"),
        pytest.param({"n_trials": 0}, ("n_trials", "found 0", "1 or more"), id="zero trials"),
        pytest.param({"n_trials": -2}, ("n_trials", "found -2"), id="negative trials"),
        pytest.param({"workers": 0}, ("workers", "found 0"), id="zero workers"),
        pytest.param({"workers": 2, "engine": "serial"}, ("engine", "processes"), id="serial with workers"),
        pytest.param({"seed": -1}, ("seed", "found -1", "0 or more"), id="seed"),
        pytest.param({"strategy": "tp"}, ("did you mean 'tpe'",), id="strategy"),
        pytest.param({"strategy": 3}, ("strategy", "found 3"), id="strategy of no kind"),
        pytest.param({"runners": {"latancy": {}}}, ("did you mean 'latency'",), id="runner"),
        pytest.param({"runners": ["latency"]}, ("runners", "found ['latency']"), id="runners of no kind"),
        pytest.param(
            {"minimize": "latency", "maximize": (), "runners": {"latency": {"batch": 1}}},
            ("did you mean 'batch_size'",),
            id="key of runner",
        ),
        pytest.param({"best": "least bitops"}, ("not a question", "(min|max) METRIC"), id="question"),
        pytest.param({"val": None, "evaluate": 3}, ("evaluate", "not a function"), id="no function"),
        pytest.param({**measuring(0), "evaluate": raises}, ("RuntimeError: no luck", "unmodified model"), id="raises"),
        pytest.param(measuring(42), ("evaluate", "found 42", "{name: number}"), id="no metrics"),
        pytest.param(measuring({"score": "high"}), ("evaluate", "{'score': 'high'}"), id="text for a number"),
        pytest.param(measuring({"scor": 1.0}), ("unknown metric", "did you mean 'scor'"), id="other metric"),
        pytest.param(
            {**measuring({"model_size": 1.0}), "maximize": "model_size"},
            ("two runners provide the same metric", "model_size and evaluate"),
            id="two runners with one metric",
        ),
        pytest.param({"out": "full"}, ("--out", "not empty", "'full'"), id="folder in use"),
    ],
)
def test_bad_arguments_of_search_are_refused(here: Path, given: dict[str, Any], words: tuple[str, ...]) -> None:
    before = tree(here)
    space = pb.Quantize(seed={"linear": {"weight_width": [4, 8]}})
    arguments = {"model": nn.Sequential(nn.Linear(6, 3)), "space": space, "maximize": "accuracy", "val": (X, Y)}
    with pytest.raises(BadInput) as refusal:
        pb.search(**{**arguments, **given})
    message = str(refusal.value)
    assert [word for word in words if word not in message] == [], message
    assert tree(here) == before


def test_a_measurement_that_is_nan_on_the_unmodified_model_ends_the_search() -> None:
    space = pb.Quantize(seed={"linear": {"weight_width": [4, 8]}})
    with pytest.raises(ParetoBitError, match="'score' is not a number"):
        pb.search(nn.Sequential(nn.Linear(6, 3)), space=space, **measuring({"score": float("nan")}))


def test_two_things_registered_alike_are_refused_and_the_first_one_stays() -> None:
    planets: Registry[type] = Registry("planet")
    planets.register("mars")(int)
    with pytest.raises(BadInput, match=r"two planets are registered as 'mars'.*float.*int"):
        planets.register("mars")(float)
    assert planets["mars"] is int
