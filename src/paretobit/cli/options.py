"""The options that commands share, declared once."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from paretobit.cli.console import document_from
from paretobit.document import Document
from paretobit.errors import BadInput

Config = Annotated[Path | None, typer.Option("--config", "-c", help="TOML file that says everything.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override any key: key.path=value. Repeatable.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Run folder. Default: the next free runs/NAME.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of everything random.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]
Load = Annotated[Path | None, typer.Option("--load", help="Checkpoint to start from.")]
LoadType = Annotated[
    str | None, typer.Option("--load-type", help="pl, pt or mz: accepted; the file itself says what it is.")
]
Project = Annotated[str | None, typer.Option("--project", help="Name of the run's folder in runs/.")]
Task = Annotated[str | None, typer.Option("--task", help="cls: the one task there is without a function.")]
Accelerator = Annotated[str | None, typer.Option("--accelerator", help="Where to train: cpu, gpu or auto.")]
MaxEpochs = Annotated[int | None, typer.Option("--max-epochs", help="Passes over the training split.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Rows per training step.")]
LearningRate = Annotated[float | None, typer.Option("--learning-rate", help="Training's step size.")]
Model = Annotated[str | None, typer.Argument(help="A model of `paretobit list models`, or file.py:function.")]
Dataset = Annotated[str | None, typer.Argument(help="A data set of `paretobit list datasets`, or npz:PATH ….")]
ModelToo = Annotated[
    str | None,
    typer.Option("--model", help="The same as MODEL; beside a folder, what builds a model given from Python."),
]
DataToo = Annotated[str | None, typer.Option("--data", help="The same as DATASET.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on in the run folder where it stopped.")]


@dataclass(frozen=True)
class ModelOptions:
    """What the commands take that look at a model: a run folder, a saved model, a TOML file, or a name."""

    model: Annotated[
        str | None, typer.Argument(help="A run folder, a saved model, a TOML file, or a model by name.")
    ] = None
    dataset: Dataset = None
    model_too: ModelToo = None
    data_too: DataToo = None
    config: Config = None
    load: Load = None
    set_: Set = None
    quiet: Quiet = False
    json_: Json = False

    @property
    def silent(self) -> bool:
        """Whether only the result, or nothing, is printed."""
        return self.quiet or self.json_

    @property
    def saved(self) -> str | None:
        """The folder of the saved model, where there is one."""
        return self.model if self.model is not None and Path(self.model).is_dir() else None

    @property
    def other_data(self) -> bool:
        """Whether the command says which data to take."""
        return bool(self.data_too or self.dataset or self.config or self.set_)

    def document(self) -> Document:
        """The document that the file and these flags make.

        Raises:
            BadInput: Other weights for a saved model.
        """
        if self.saved is not None and self.load is not None:
            raise BadInput("the folder has weights of its own", key="--load", found=str(self.load))
        config, model = self.config, None if self.saved else self.model
        if model is not None and config is None and model.endswith(".toml"):
            config, model = Path(model), None
        return document_from(config, self._flags(model), self.set_, self.silent)

    def _flags(self, model: str | None) -> dict[str, Any]:
        return {
            "model.name": self.model_too or model,
            "data.name": self.data_too or self.dataset,
            "model.load": None if self.load is None else str(self.load),
        }


@dataclass(frozen=True)
class RunOptions(ModelOptions):
    """What `train`, `search` and `transform` all take."""

    model: Model = None
    load_type: LoadType = None
    max_epochs: MaxEpochs = None
    batch_size: BatchSize = None
    learning_rate: LearningRate = None
    project: Project = None
    task: Task = None
    accelerator: Accelerator = None
    seed: Seed = None
    out: Out = None
    run: Path | None = None
    """The run folder whose own file `config` is; no option."""

    def document(self, **more: Any) -> Document:
        """The document that the file, these flags, and `more` (key to value, dots as `__`) make."""
        flags = {
            **self._flags(self.model),
            "load_type": self.load_type,
            "project": self.project,
            "task": self.task,
            "train.device": self.accelerator,
            "train.max_epochs": self.max_epochs,
            "train.batch_size": self.batch_size,
            "train.learning_rate": self.learning_rate,
            "seed": self.seed,
            **{key.replace("__", "."): value for key, value in more.items()},
        }
        return document_from(self.config, flags, self.set_, self.silent, self.run)


def with_options(kind: type[ModelOptions]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a kind, as its first argument, beside its own."""
    shared = {n: p for n, p in inspect.signature(kind).parameters.items() if n != "run"}

    def give(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())[1:]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            options = kind(**{name: given.pop(name) for name in shared})
            command(options, **given)

        hints = get_type_hints(kind, include_extras=True) | get_type_hints(command, include_extras=True)
        parameters = [p.replace(kind=p.KEYWORD_ONLY, annotation=hints[p.name]) for p in [*shared.values(), *own]]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        del run.__wrapped__  # whose signature is another
        return run

    return give
