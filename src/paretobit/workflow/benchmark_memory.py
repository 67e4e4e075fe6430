"""What one pass of a model takes in memory, and what the model keeps."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile

from paretobit.nn import Quantized
from paretobit.workflow.benchmark_variants import Variant


def kept_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers, each memory once, and of the caches of quantised parameters.

    A cache holds a copy of what it has quantised too, by which it sees a change.
    """
    tensors = [*model.parameters(), *model.buffers()]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    caches = {id(m._cache): m._cache.used for m in model.modules() if isinstance(m, Quantized)}
    return sum(storages.values()) + sum(caches.values())


def peak_bytes(variant: Variant, batch: Tensor) -> int:
    """Most bytes of torch's allocator that one pass holds at once, beyond what was there before it.

    On the CPU every allocation and release that torch's profiler reports is added up in order of time, compiled
    code's too; scratch memory that a library takes from the system by itself is not seen. On CUDA:
    `max_memory_allocated` during the pass, less `memory_allocated` before it.
    """
    if batch.device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with variant.within():
            variant.run(batch)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with _without_stderr(), profile(profile_memory=True) as profiled, variant.within():
        kept_alive = variant.run(batch)
    assert profiled.kineto_results is not None
    events = [event for event in profiled.kineto_results.events() if event.name() == "[memory]"]
    del kept_alive
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Standard error goes nowhere: torch 2.13's profiler prints two lines at every start and stop."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
