"""From settings or Python objects to the parts of a search."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from paretobit.data import Data
from paretobit.data.calibration import Calibration, Loss
from paretobit.data.text import typical_row
from paretobit.document import Document, validate
from paretobit.errors import BadInput, located
from paretobit.graph import Example, trace, with_conditional
from paretobit.models import ModelSettings, build, layout, load_state, read_state
from paretobit.runtime import is_reference, load_function
from paretobit.spaces import SPACES, BoundSpace, Space
from paretobit.spaces.knobs import Tree
from paretobit.strategies import STRATEGIES, StrategySettings
from paretobit.strategies.optuna_samplers import SAMPLERS
from paretobit.trials.evidence import Evidence
from paretobit.trials.runners import RUNNERS, FileRunner, FunctionRunner, Runner
from paretobit.trials.runners.function import Evaluate
from paretobit.wanted.wanted import Wanted
from paretobit.workflow.other_run import OtherRun
from paretobit.workflow.settings import DEFAULT_RUNNERS, SearchSettings

Pair = tuple[Any, Any]
Rows = int | Pair | Sequence[Example]
"""Calibration rows as a user gives them: how many of the data's, a pair, or batches."""
DEFAULT_CALIBRATION = SearchSettings.model_fields["calibration"].default
EXHAUSTIVE_UP_TO = 500
DEFAULT_TRIALS = 100


def data_for(model_name: str, data: Data) -> Data:
    """The data in the layout that a model of the zoo wants."""
    return data.flattened() if layout(model_name) == "features" else data


def build_model(settings: ModelSettings, data: Data, seed: int) -> nn.Module:
    """The model for this data, with the weights of the checkpoint or of the other search where one is named.

    Raises:
        BadInput: The model does not fit the data, or there are no such weights.
    """
    if settings.from_run is not None:
        return OtherRun.of(settings).model(data)
    model = build(
        settings.name, data.input_shape, data.num_classes, seed,
        config=settings.config, head=settings.head, tokens=data.tokens,
    )  # fmt: skip
    if settings.load is not None:
        with located(key="model.load"):
            load_state(model, read_state(settings.load), settings.load)
    return model.eval()


def splits_from(pairs: Mapping[str, Pair | None], model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Splits given from Python: tensors or arrays, checked; real numbers in the model's dtype.

    Raises:
        BadInput: Inputs and labels of different length, no rows, or inputs that are not finite.
    """
    if not isinstance(model, nn.Module):
        raise BadInput("not a model", key="model", found=model, allowed="an nn.Module")
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    splits = {}
    for name, pair in pairs.items():
        if pair is None:
            continue
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise BadInput("not a pair of inputs and labels", key=name, found=type(pair).__name__)
        x, y = (_tensor(part, name) for part in pair)
        x = x.to(dtype) if x.is_floating_point() else x
        if len(x) != len(y):
            raise BadInput("inputs and labels differ in length", key=name, found=[len(x), len(y)])
        if len(x) == 0:
            raise BadInput("an empty split", key=name)
        if x.is_floating_point() and not torch.isfinite(x).all():
            bad = int((~torch.isfinite(x)).sum())
            raise BadInput("inputs that are NaN or infinite", key=name, found=f"{bad} values")
        splits[name] = (x.contiguous(), y if y.is_floating_point() else y.long().contiguous())
    return splits


def _tensor(part: Any, key: str) -> Tensor:
    try:
        tensor = torch.as_tensor(part)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadInput(f"not numbers: {error}", key=key, found=type(part).__name__, allowed="arrays") from None
    if tensor.dim() == 0:
        raise BadInput("no rows", key=key, found=part, allowed="arrays, rows first")
    return tensor


def evidence_for(
    model: nn.Module,
    splits: Mapping[str, tuple[Tensor, Tensor]],
    example: Example | None = None,
    calibration: Rows = DEFAULT_CALIBRATION,
    loss: Loss | str | None = None,
) -> Evidence:
    """The model's graph, the data, and the rows to calibrate on.

    Args:
        model: Any module.
        splits: The data.
        example: Inputs for the graph; None: a row of the data, of sentences with padding the one nearest the
            mean length, without padding.
        calibration: As a user gives it.
        loss: A function, or where it is: `path/to/file.py:function`.

    Raises:
        BadInput: The model does not run on the data, the calibration rows are none, or the loss is no
            function.
    """
    if isinstance(loss, str):
        if not is_reference(loss):
            raise _no_function("loss", loss)
        with located(key="search.loss"):
            loss = load_function(loss)
    if loss is not None and not callable(loss):
        raise BadInput("not a function", key="loss", found=loss, allowed="(output, target) -> 0-d tensor")
    if example is None and splits:
        x, padding = next(iter(splits.values()))[0], getattr(model, "padding", None)
        example = x[:1] if padding is None else typical_row(x, padding)
    if example is None and isinstance(calibration, Sequence) and calibration:
        example = calibration[0]
    evidence = Evidence(trace(model, example), splits)
    rows = evidence.rows_per_pass
    evidence = replace(evidence, calibration=_calibration(splits, calibration, loss, rows, model))
    if example is None:
        return evidence
    return replace(evidence, graph=with_conditional(evidence.graph, _runs(example, evidence)))


def _runs(example: Example, evidence: Evidence) -> dict[str, Example]:
    """Runs of the kinds that may differ: first and later, full and last batch, with and without padding."""
    runs = {"the first call": example, "a later call": example}
    if isinstance(example, Mapping) and isinstance(example.get("attention_mask"), Tensor):
        whole = torch.ones_like(example["attention_mask"])
        padded = whole.clone()
        padded[..., -1] = 0
        runs["a call without padding"] = {**example, "attention_mask": whole}
        runs["a call with padding"] = {**example, "attention_mask": padded}
    rows = evidence.rows_per_pass
    for name, (x, _) in evidence.splits.items():
        if name != "test" and len(x):
            runs[f"the first batch of the {name} data"] = x[:rows]
            runs[f"the last batch of the {name} data"] = x[-((len(x) - 1) % rows + 1) :]
    if evidence.calibration is not None:
        runs["the first batch of the calibration data"] = evidence.calibration.batches[0]
        runs["the last batch of the calibration data"] = evidence.calibration.batches[-1]
    return runs


def _calibration(
    splits: Mapping[str, tuple[Tensor, Tensor]], given: Rows, loss: Loss | None, rows_per_batch: int, model: nn.Module
) -> Calibration | None:
    """What was given; a number: so many of the first rows to train on, or else to validate on."""
    if isinstance(given, int):
        source = next((splits[name] for name in ("train", "val") if name in splits), None)
        if given < 0:
            raise BadInput("not a number of rows", key="calibration", found=given, allowed="0 or more")
        if source is None or given == 0:
            return None
        x, y = source
        return Calibration.of_rows(x[:given], y[:given], rows_per_batch, loss)
    if isinstance(given, tuple) and len(given) == 2:
        x, y = splits_from({"calibration": given}, model)["calibration"]
        return Calibration.of_rows(x, y, rows_per_batch, loss)
    batches = list(given) if isinstance(given, Sequence) else []
    if not batches or not all(isinstance(batch, Tensor | Sequence | Mapping) for batch in batches):
        allowed = "a number of rows, (x, y), or a list of batches as the model takes them"
        raise BadInput("no calibration rows", key="calibration", found=type(given).__name__, allowed=allowed)
    return Calibration(tuple(batches), None, loss)


def make_runners(
    tables: Mapping[str, Mapping[str, Any]] | None,
    evidence: Evidence,
    evaluate: Evaluate | str | None,
    directions: Mapping[str, str],
    document: Document,
) -> tuple[Runner, ...]:
    """The runners a search uses.

    Args:
        tables: Runner, or `path/to/file.py:function`, to settings; None takes the defaults that the
            evidence allows.
        evidence: What they look at.
        evaluate: A user's measurement, in place of `basic_evaluation`: a function, or where it is.
        directions: Of the user's metrics.
        document: Where the tables came from.

    Raises:
        BadInput: No such runner or function, or settings that it does not take.
    """
    if isinstance(evaluate, str):
        if not is_reference(evaluate):
            raise _no_function("evaluate", evaluate)
    elif evaluate is not None and not callable(evaluate):
        raise BadInput("not a function", key="evaluate", found=evaluate, allowed="model -> {name: number}")
    if not isinstance(tables, Mapping | None):
        raise BadInput("not a table", key="runners", found=tables, allowed="runner to settings")
    if tables is None:
        needs = {"basic_evaluation": "val" in evidence.splits and evaluate is None}
        needs["basic_computation"] = evidence.graph.batch is not None
        tables = {name: {} for name in DEFAULT_RUNNERS if needs.get(name, True)}
    runners: list[Runner] = []
    for name, table in tables.items():
        prefix = f"search.runners.{name}"
        with located(key=prefix):
            if is_reference(name):
                runners.append(FileRunner(evidence, name, table, directions))
                continue
            runner = RUNNERS[name]
            runners.append(runner(evidence, validate(runner.Settings, table, document, prefix)))
    if isinstance(evaluate, str):
        with located(key="search.evaluate"):
            runners.append(FileRunner(evidence, evaluate, {}, directions))
    elif evaluate is not None:
        runners.append(FunctionRunner(evidence, evaluate, directions))
    return tuple(runners)


def _no_function(key: str, found: str) -> BadInput:
    return BadInput("not a function", key=key, found=found, allowed="path/to/file.py:function")


def make_space(table: Mapping[str, Any], document: Document) -> Space:
    """The space that `[search.space]` describes."""
    settings = dict(table)
    name = settings.pop("name", "quantize")
    if isinstance(name, list):
        name, settings = ("product", {"spaces": name, **settings}) if len(name) > 1 else (name[0], settings)
    with document.placing("search.space"):
        if name not in SPACES:
            raise BadInput(f"unknown {SPACES.noun}", key="name", found=name, allowed=SPACES.names())
        return SPACES[name].from_settings(settings)


def choose_strategy(
    given: str | Mapping[str, Any] | None,
    n_trials: int | None,
    tree: Tree,
    wanted: Wanted,
    document: Document,
    *,
    default: str = "optuna",
) -> tuple[str, StrategySettings, int]:
    """Name, settings and number of trials of the strategy.

    A sampler's name alone (`tpe`) means Optuna with that sampler. `default` is for spaces that are too
    large to try everything.
    """
    table = {"name": given} if isinstance(given, str) else dict(given or {})
    name = table.pop("name", None)
    if name is None:
        name = "brute_force" if tree.size <= EXHAUSTIVE_UP_TO else default
    if name in SAMPLERS:
        name, table = "optuna", {"sampler": name, **table}
    with document.placing("search.strategy"):
        if name not in STRATEGIES:
            allowed = [*STRATEGIES.names(), *SAMPLERS]
            raise BadInput(f"unknown {STRATEGIES.noun}", key="name", found=name, allowed=allowed)
        strategy = STRATEGIES[name]
        settings = validate(strategy.Settings, table, document, "search.strategy")
        strategy.check(settings, tree, len(wanted.objectives))
    return name, settings, n_trials or (tree.size if name == "brute_force" else DEFAULT_TRIALS)


def default_strategy(space: BoundSpace, wanted: Wanted, runners: Sequence[Runner]) -> str:
    """`guided` where layers vary, a cost is known beforehand and something has to be measured; else Optuna."""
    known = {name for runner in runners for m in runner.metrics if m.cheap for name in (m.name, m.short)}
    asked = [metric for objective in wanted.objectives for metric in objective.metrics]
    asked += [constraint.metric for constraint in wanted.constraints]
    both = any(name in known for name in asked) and any(name not in known for name in asked)
    return "guided" if both and space.acts_on() else "optuna"
