"""The ways in which one model can be run: eager, compiled, with another attention, with packed weights."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from paretobit.graph import two_rows
from paretobit.graph.copies import copy_of
from paretobit.nn import QuantizedFunction
from paretobit.nn.packed import pack_linears
from paretobit.runtime import cpp_compiler
from paretobit.training.evaluate import run_on_view

EAGER = "eager"
_FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]
_FUSED_OPERATIONS = ("_scaled_dot_product_", "_native_multi_head_attention", "_transformer_encoder_layer_fwd")


class NotOffered(Exception):
    """This model, or this machine, does not have the variant; the message says why."""


@dataclass(frozen=True)
class Variant:
    """One way to run a model.

    Attributes:
        model: Whose parameters it keeps.
        run: A pass: logits of a batch.
        within: Made anew around passes: what holds while they run.
        note: What there is to know.
    """

    model: nn.Module
    run: Callable[[Tensor], Tensor]
    within: Callable[[], AbstractContextManager[Any]] = nullcontext
    note: str = ""


def _compiled(model: nn.Module, x: Tensor) -> Variant:
    if x.device.type == "cpu" and cpp_compiler() is None:
        raise NotOffered("torch.compile needs a C++ compiler, and none was found: set CXX to one")
    copied = copy_of(model)
    # Isolated: else all cells share one limit of recompilations, and beyond it torch quietly runs eagerly.
    compiled: Any = torch.compile(copied, dynamic=False, isolate_recompiles=True)  # type: ignore[call-overload]
    return Variant(copied, lambda batch: run_on_view(compiled, batch))


def _fused(model: nn.Module, x: Tensor) -> Variant:
    copied = _with_attention(model, x, "sdpa")
    return Variant(copied, lambda batch: run_on_view(copied, batch), lambda: sdpa_kernel(_FUSED))


def _plain(model: nn.Module, x: Tensor) -> Variant:
    _with_attention(model, x, "sdpa")  # there is an attention, or this says that there is none
    copied = _with_attention(model, x, "eager", look=False)
    return Variant(copied, lambda batch: run_on_view(copied, batch), _by_products)


def _packed(model: nn.Module, x: Tensor) -> Variant:
    copied, packed, left = pack_linears(model)
    if not packed:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in left.items())
        raise NotOffered(f"no linear layer can be packed: {reasons}" if left else "there is no linear layer")
    note = f"{len(packed)} of {len(packed) + len(left)} linear layers packed"
    return _plainly(copied, note)


VARIANTS: dict[str, Callable[[nn.Module, Tensor], Variant]] = {
    EAGER: lambda model, x: _plainly(copy_of(model)),
    "compile": _compiled,
    "fused_attention": _fused,
    "plain_attention": _plain,
    "packed_mxint8": _packed,
}
"""Every variant: from the model and a batch on its device; raises `NotOffered`. The model stays as it is."""


def _plainly(model: nn.Module, note: str = "") -> Variant:
    return Variant(model, lambda batch: run_on_view(model, batch), note=note)


def _with_attention(model: nn.Module, x: Tensor, wanted: str, look: bool = True) -> nn.Module:
    """A copy with an implementation of attention, where it lets itself be told; `look`: a fused kernel runs."""
    if any(isinstance(part, QuantizedFunction) and part.active for part in model.modules()):
        raise NotOffered("functions of the model carry formats: another attention would run other functions")
    copied = copy_of(model)
    tell = getattr(copied, "set_attn_implementation", None)
    if tell is not None:
        try:
            tell(wanted)
        except (ValueError, ImportError) as error:
            raise NotOffered(f"transformers: {error}") from None
    if look:
        watch = _Watch()  # type: ignore[no-untyped-call]
        with torch.no_grad(), watch:
            run_on_view(copied, two_rows(x))
        if not watch.seen:
            raise NotOffered("the model calls no attention that torch has a fused kernel for")
    return copied


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notices whether a fused kernel of attention runs."""

    seen = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen = self.seen or any(name in str(func) for name in _FUSED_OPERATIONS)
        return func(*args, **(kwargs or {}))


@contextmanager
def _by_products() -> Iterator[None]:
    """Attention as two products and a softmax, also where torch has a kernel for the whole layer."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
