"""A transformer of HuggingFace as a pattern: others of its type, with other values in the configuration."""

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from paretobit.errors import BadInput
from paretobit.graph import ModelGraph, trace
from paretobit.models.huggingface import LogitsOnly
from paretobit.runtime import seed_everything, seeded
from paretobit.spaces.knobs import Value

_SPELLINGS = (
    ("num_hidden_layers", "num_layers", "n_layers", "n_layer", "layers", "depth", "num_blocks", "n_blocks"),
    ("num_attention_heads", "num_heads", "n_heads", "n_head", "heads", "attention_heads"),
    ("hidden_size", "d_model", "n_embd", "dim", "width", "hidden", "embed_dim", "embedding_size", "size"),
    ("intermediate_size", "hidden_dim", "ffn_dim", "n_inner", "d_ff", "mlp_dim", "ff_dim", "intermediate"),
)
"""What types of transformers, and people, call the same thing."""
_DECIDED_ELSEWHERE = {
    "architectures": "the type of the model",
    "attn_implementation": "the model",
    "dtype": "the model",
    "id2label": "the data",
    "image_size": "the data",
    "label2id": "the data",
    "model_type": "the type of the model",
    "num_channels": "the data",
    "num_labels": "the data",
    "pad_token_id": "the tokenizer",
    "problem_type": "the data",
    "return_dict": "the head",
    "torch_dtype": "the model",
    "transformers_version": "the installation",
    "vocab_size": "the tokenizer",
}
_SIZES_OF_HEADS = ("head_dim", "d_kv")
"""Where a type has such a key, with a value, heads need not divide the hidden size."""
_META = torch.device("meta")
_NO_TOKEN = -1


class Impossible(Exception):
    """A configuration of which no model can be made."""


@dataclass(frozen=True)
class Network:
    """What a model is like without its numbers.

    Attributes:
        parameters: Name and shape of each.
        layers: Those that run, by path, in order of execution.
    """

    parameters: tuple[tuple[str, tuple[int, ...]], ...]
    layers: Mapping[str, nn.Module]


class Transformer:
    """A given model as a pattern.

    Args:
        graph: Of a transformer of HuggingFace, traced with example inputs.

    Attributes:
        kind: Its type (`bert`).
        example: Inputs of the shapes it was traced with, by the names of its arguments: drawn token ids
            without padding, drawn pixels.

    Raises:
        BadInput: The model is none, or was traced without inputs.
    """

    def __init__(self, graph: ModelGraph) -> None:
        self._model = graph.model
        config: Any = getattr(graph.model, "config", None)
        if not hasattr(config, "attribute_map") or not hasattr(config, "model_type"):
            problem = "the space 'architecture' varies the configuration of a transformer of HuggingFace"
            raise BadInput(problem, key="model", found=type(graph.model).__name__, allowed="a model hf:TYPE")
        self._config = config
        self.kind: str = config.model_type
        self._aliases: Mapping[str, str] = config.attribute_map
        keys = {*type(config)().to_dict(), *config.to_dict()} - {*self._aliases}
        self._keys = sorted(key for key in keys if not key.startswith("_"))
        self.example = self._make_example(graph)

    def key(self, given: str) -> str:
        """The key of the configuration that is meant; another name that the type knows is resolved.

        Raises:
            BadInput: The type does not have it, or it is decided elsewhere.
        """
        key = self._aliases.get(given, given)
        if key in _DECIDED_ELSEWHERE:
            raise BadInput(f"{_DECIDED_ELSEWHERE[key]} decides it", key=given, found=given)
        if key in self._keys:
            return key
        family = next((names for names in _SPELLINGS if given in names), ())
        right = next((n for name in family if (n := self._aliases.get(name, name)) in self._keys), None)
        problem = f"a configuration of '{self.kind}' has no such key"
        if right is not None:
            raise BadInput(f"{problem}: it is called '{right}'", key=given, found=given, allowed=[right])
        allowed = [name for name in self._keys if name not in _DECIDED_ELSEWHERE]
        raise BadInput(problem, key=given, found=given, allowed=allowed)

    def network(self, values: Mapping[str, Value], identity: Iterable[str] = ()) -> Network:
        """What the model with these values is like, found without numbers where the type allows it.

        Args:
            values: In place of those of the given model's configuration.
            identity: Paths of layers that are replaced by `nn.Identity`.

        Raises:
            Impossible: There is no such model, or it does not take the inputs.
        """
        config = self._possible(values)
        try:
            if self._runs_without_numbers:
                with _META:
                    model: nn.Module = type(self._model)(config).eval()
                replace_layers(model, identity)
            else:
                model = self.build(values, 0, identity)
        except Exception as error:  # each type checks its configuration in its own way
            raise Impossible(_reason(error)) from error
        return Network(tuple((n, tuple(p.shape)) for n, p in model.named_parameters()), self._layers(model))

    def _possible(self, values: Mapping[str, Value]) -> Any:
        """The configuration, of which some types do not say that the heads must divide the hidden size."""
        try:
            config = self._changed(values)
        except Exception as error:
            raise Impossible(_reason(error)) from error
        size, heads = (getattr(config, key, None) for key in ("hidden_size", "num_attention_heads"))
        own = any(getattr(config, key, None) is not None for key in _SIZES_OF_HEADS)
        if isinstance(size, int) and isinstance(heads, int) and not own and (heads < 1 or size % heads):
            raise Impossible(f"the hidden size {size} is not a multiple of the {heads} heads")
        return config

    @cached_property
    def _runs_without_numbers(self) -> bool:
        """Whether the type runs on the device `meta`: some look at values."""
        with _META:
            model = type(self._model)(self._changed({})).eval()
        try:
            self._layers(model)
        except Impossible:
            return False
        return True

    def _layers(self, model: nn.Module) -> dict[str, nn.Module]:
        """The layers that run, by path, in order of execution.

        Raises:
            Impossible: The model does not take the inputs.
        """
        ran: dict[str, nn.Module] = {}
        device = next(model.parameters()).device
        leaves = [(path, module) for path, module in model.named_modules() if not list(module.children())]
        hooks = [module.register_forward_pre_hook(partial(_note, ran, path)) for path, module in leaves]
        try:
            with torch.no_grad():
                model(**self._inputs(device))
        except Exception as error:
            raise Impossible(f"it does not take the inputs: {_reason(error)}") from error
        finally:
            for hook in hooks:
                hook.remove()
        return ran

    def _inputs(self, device: torch.device) -> dict[str, Tensor]:
        return {name: value.to(device) for name, value in self.example.items()}

    def build(self, values: Mapping[str, Value], seed: int, identity: Iterable[str] = ()) -> nn.Module:
        """The model with these values and fresh weights, in evaluation mode.

        Args:
            values: In place of those of the given model's configuration.
            seed: Of the weights.
            identity: Paths of layers that are replaced by `nn.Identity`.
        """
        config = self._changed(values)
        with seeded(seed):
            model: nn.Module = type(self._model)(config)
        if getattr(self._config, "pad_token_id", None) == _NO_TOKEN:
            model.config.pad_token_id = _NO_TOKEN  # type: ignore[union-attr]  # GPT-2 classifies by it
        if isinstance(model, LogitsOnly) and isinstance(self._model, LogitsOnly):
            model.padding = self._model.padding
        replace_layers(model, identity)
        return model.to(next(self._model.parameters()).device).eval()

    def trace(self, model: nn.Module) -> ModelGraph:
        """The graph of a model that was built."""
        return trace(model, self._inputs(next(model.parameters()).device))

    def digest(self, values: Mapping[str, Value], seed: int) -> str:
        """Of the outputs on the example, in evaluation and in training mode, with weights of one seed."""
        model, digest = self.build(values, seed), hashlib.sha256()
        inputs = self._inputs(next(model.parameters()).device)
        with seeded(seed), torch.no_grad():
            for training in (False, True):
                seed_everything(seed)
                for leaf in tree_leaves(tree_map(_as_plain, model.train(training)(**inputs))):
                    if isinstance(leaf, Tensor):
                        digest.update(leaf.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _changed(self, values: Mapping[str, Value]) -> Any:
        """The given model's configuration with other values; transformers checks it again."""
        own = self._config.to_diff_dict()
        if own.get("pad_token_id") == _NO_TOKEN:
            del own["pad_token_id"]  # set after the model was built, for its sake
        config = type(self._config).from_dict({**own, **values})
        config._attn_implementation = self._config._attn_implementation
        return config

    def _make_example(self, graph: ModelGraph) -> dict[str, Tensor]:
        """Inputs of the shapes that the graph was traced with."""
        nodes = [node for node in graph if node.kind == "placeholder" and node.output_shape is not None]
        names = list(inspect.signature(graph.model.forward).parameters)
        if not nodes or any(node.name not in names for node in nodes):
            raise BadInput("the model was traced without inputs", key="example", allowed="trace(model, inputs)")
        text = getattr(graph.model, "main_input_name", "") == "input_ids"
        generator = torch.Generator().manual_seed(0)
        example = {}
        for node in nodes:
            shape = node.output_shape or ()
            if not text:
                example[node.name] = torch.randn(shape, generator=generator)
            elif node.name == "attention_mask":
                example[node.name] = torch.ones(shape, dtype=torch.int64)
            elif node.name == "token_type_ids":
                example[node.name] = torch.zeros(shape, dtype=torch.int64)
            else:
                example[node.name] = self._token_ids(shape, generator)
        return example

    def _token_ids(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Drawn tokens, none of which is padding."""
        tokens = int(self._config.vocab_size)
        padding = {getattr(self._config, "pad_token_id", None), getattr(self._model, "padding", None)}
        allowed = torch.tensor([token for token in range(tokens) if token not in padding] or [0])
        return allowed[torch.randint(len(allowed), shape, generator=generator)]


def replace_layers(model: nn.Module, paths: Iterable[str]) -> None:
    """Put `nn.Identity` in the place of layers."""
    for path in paths:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, nn.Identity())


def _note(ran: dict[str, nn.Module], path: str, module: nn.Module, inputs: Any) -> None:
    """A hook, all but its last two arguments given, that notes a layer at its first call."""
    ran.setdefault(path, module)


def _as_plain(value: Any) -> Any:
    """A result of transformers as a list."""
    return list(value.values()) if hasattr(value, "to_tuple") else value


def _reason(error: Exception) -> str:
    """One line."""
    return " ".join(str(error).split()) or type(error).__name__
