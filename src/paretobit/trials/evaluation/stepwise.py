"""A model run operation by operation: what is the same as in an earlier run is taken from there.

A result is known by its key: the operation, the formats and the contents of the parameters it works
with, and the keys of its arguments. Two runs that give an operation the same key give it the same
bits. One that cannot promise that (random numbers, functions and hooks of the user's) has no key and
always runs, and nothing that depends on it is kept.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from paretobit.formats import FULL
from paretobit.graph import ModelGraph
from paretobit.graph.executable import Instruction, steps_of
from paretobit.trials.evaluation.operation import Formats, Values, operations_of
from paretobit.trials.evaluation.reuse import Kept, memory_of

_INPUT = 0
_SHAPES = 1000
_models = itertools.count()


class _Turn(NamedTuple):
    """One operation of a schedule."""

    number: int
    compute: Callable[[Values], Any]
    copies: tuple[tuple[int, int], ...]  # results that stand elsewhere, and where they are needed
    overwritten: int | None  # an argument that it writes into and that must survive
    kept: bool
    frees: tuple[int, ...]
    sized: bool


@dataclass
class _Schedule:
    """What one run over all batches does."""

    turns: list[_Turn]
    ready: list[tuple[int, list[Tensor]]]
    output: int
    kept: dict[int, list[Tensor]]
    keys: list[int | None]
    seconds: list[float]
    sizes: list[int]


class Stepwise:
    """A model as operations.

    Args:
        model: In evaluation mode; called with one tensor.
        steps: Its steps.
        kept: Where results are kept.
    """

    def __init__(self, model: nn.Module, steps: Sequence[Instruction], kept: Kept) -> None:
        self._kept, self._own, self._formats = kept, next(_models), Formats()
        self._operations = operations_of(model, steps, self._formats)
        self._candidates: list[int] = []  # results of which a consumer varies
        self._schedule: _Schedule | None = None
        self._runs = 0
        self._turns: dict[Hashable, list[_Turn]] = {}

    @cached_property
    def leaves_model(self) -> bool:
        """Whether a run can write into nothing that the model holds: only pure operations, on activations."""
        operations = self._operations
        holds_more = any(not operation.inputs for operation in operations[1:])
        in_place = any(operation.in_place for operation in operations)
        return all(operation.pure for operation in operations) and not (in_place and holds_more)

    @classmethod
    def of(cls, graph: ModelGraph, model: nn.Module, batch: Tensor, kept: Kept) -> Stepwise | None:
        """The model by its operations; None where torch.fx cannot trace it.

        Args:
            graph: Of a model with the same modules.
            model: In evaluation mode.
            batch: What it is called with.
            kept: Where results are kept.
        """
        steps = steps_of(graph, model, batch[:1])
        if steps is None or [step.node.kind == "placeholder" for step in steps[:2]] != [True, False]:
            return None
        return cls(model, steps, kept)

    def agrees(self, model: nn.Module, batch: Tensor) -> bool:
        """Whether a run of the operations gives the bits that the model gives.

        Args:
            model: In evaluation mode.
            batch: Too few rows to compute anything in another order.
        """
        state = torch.get_rng_state()
        try:
            with torch.no_grad():
                expected = model(batch.clone())
                torch.set_rng_state(state)
                self.begin(None, keep=False)
                found = self.run(batch, 0)
                safe = self._writes_are_seen(batch)
        finally:
            torch.set_rng_state(state)
        if not safe or not isinstance(found, Tensor) or not isinstance(expected, Tensor):
            return False
        if found.dtype != expected.dtype or found.shape != expected.shape:
            return False
        return bool(((found == expected) | (found.isnan() & expected.isnan())).all())

    def _writes_are_seen(self, batch: Tensor) -> bool:
        """Whether nobody takes, through another tensor of the same memory, what was written in place.

        Who takes the very tensor takes the result of who wrote last; a view of it is not followed.
        """
        values: Values = [batch]
        last = {j: i for i, operation in enumerate(self._operations) for j in operation.inputs}
        for i, operation in enumerate(self._operations[1:], 1):
            if operation.in_place:
                written = operation.inputs[0]
                target = values[written]
                for j, value in enumerate(values):
                    if j != written and last.get(j, -1) > i and _share_memory(value, target):
                        return False
                values.append(operation.compute([*values[:written], target.clone(), *values[written + 1 :]]))
            elif operation.quantizes is not None and operation.quantizes() is FULL:
                values.append(values[operation.inputs[0]])
            else:
                values.append(operation.compute(values))
        return True

    def begin(self, data: Hashable, keep: bool = True) -> None:
        """Prepare a run over all batches, with the formats and parameters that the model has now.

        Args:
            data: Tells the batches apart from others; None: they have no name.
            keep: Whether to keep results.
        """
        if self._kept.tidy():
            for operation in self._operations:
                operation.key = None
                operation.sightings.forget()
        keys, real = self._keys(data)
        self._schedule = self._scheduled(keys, real, keep and self._kept.budget > 0)

    def run(self, batch: Tensor, number: int) -> Any:
        """The model's result on one batch; the batch is not written into.

        Args:
            batch: Inputs.
            number: Which batch it is.
        """
        schedule = self._schedule
        assert schedule is not None
        values: Values = [None] * len(self._operations)
        values[_INPUT] = batch
        for i, held in schedule.ready:
            values[i] = held[number]
        seconds, sizes, before = schedule.seconds, schedule.sizes, time.perf_counter()
        for i, compute, copies, overwritten, kept, frees, sized in schedule.turns:
            for j, source in copies:
                values[j] = values[source]
            if overwritten is None:
                result = compute(values)
            else:
                survives = values[overwritten]
                values[overwritten] = survives.clone()
                result = compute(values)
                values[overwritten] = survives
            values[i] = result
            if sized and isinstance(result, Tensor):
                sizes[i] += memory_of(result)
            if kept:
                schedule.kept[i].append(result)
            for j in frees:
                values[j] = None
            now = time.perf_counter()
            seconds[i] += now - before
            before = now
        return values[schedule.output]

    def finish(self) -> None:
        """All batches were run: keep what was to be kept."""
        schedule = self._schedule
        assert schedule is not None
        for turn in schedule.turns:
            operation = self._operations[turn.number]
            operation.seconds = schedule.seconds[turn.number]
            if turn.sized:
                operation.size = schedule.sizes[turn.number]
                self._turns.clear()  # they know which sizes are known
        for i, values in schedule.kept.items():
            key = schedule.keys[i]
            if key is not None and all(isinstance(value, Tensor) for value in values):
                self._kept.add(key, values)
        self._schedule = None
        self._runs += 1

    def _keys(self, data: Hashable) -> tuple[list[int | None], list[int]]:
        """The key of every result, and the number of the operation that really gives it."""
        keys: list[int | None] = []
        real: list[int] = []
        first: dict[int, int] = {}
        number = self._kept.number
        for i, operation in enumerate(self._operations):
            key: int | None
            if i == _INPUT:
                key = None if data is None else number(("data", self._own, data))
                keys.append(key)
                real.append(i)
                continue
            state = operation.state()
            inputs = tuple([keys[j] for j in operation.inputs])
            key = operation.key
            if state != operation.last:
                operation.last, key = state, None
                if self._runs and not operation.varies:
                    operation.varies = True
                    self._candidates = sorted({*self._candidates, *operation.inputs} - {_INPUT})
            if operation.quantizes is not None and operation.quantizes() is FULL:
                operation.key = None
                keys.append(inputs[0])
                real.append(real[operation.inputs[0]])
                continue
            if key is None or inputs != operation.taken:
                key = None
                if state is not None and None not in inputs:
                    which = -1 if operation.quantizes is not None else i
                    key = number((self._own, which, state, *inputs))
                operation.key, operation.taken = key, inputs
            keys.append(key)
            real.append(i if key is None else first.setdefault(key, i))
        return keys, real

    def _scheduled(self, keys: list[int | None], real: list[int], keep: bool) -> _Schedule:
        """Only what the result needs and is not kept from an earlier run."""
        count, operations = len(keys), self._operations
        output = real[count - 1]
        needed, ready = [not operation.pure for operation in operations], list[tuple[int, list[Tensor]]]()
        needed[output] = True
        order: list[int] = []
        for i in range(count - 1, -1, -1):
            if not needed[i] or i == _INPUT:
                continue
            key = keys[i]
            if keep and key is not None and self._kept.holds(key):
                ready.append((i, self._kept.values(key)))
                continue
            order.append(i)
            for j in operations[i].inputs:
                needed[real[j]] = True
        order.reverse()
        in_use = {key for i, _ in ready if (key := keys[i]) is not None}
        kept = self._to_keep(order, keys, real, in_use) if keep else {}
        shape = (tuple(order), tuple(real), tuple(kept))
        turns = self._turns.get(shape)
        if turns is None:
            if len(self._turns) >= _SHAPES:
                self._turns.clear()
            turns = self._turns[shape] = self._ordered(order, real, kept, output)
        return _Schedule(turns, ready, output, kept, keys, [0.0] * count, [0] * count)

    def _ordered(self, order: Sequence[int], real: Sequence[int], kept: Collection[int], output: int) -> list[_Turn]:
        """The operations to run, one after the other; results are let go after their last use."""
        uses, last = self._uses(order, real)
        running = set(order)
        turns = []
        for i in order:
            operation = self._operations[i]
            copies = tuple((j, real[j]) for j in operation.inputs if real[j] != j)
            overwritten = None
            if operation.in_place:
                written = operation.inputs[0]
                source = real[written]
                alone = uses[source] == 1 and source in running and self._operations[source].fresh
                overwritten = None if alone and source not in kept and source != output else written
            frees = tuple({j for j, _ in copies} | {j for j in last.get(i, ()) if j != output})
            turns.append(_Turn(i, operation.compute, copies, overwritten, i in kept, frees, not operation.size))
        return turns

    def _uses(self, order: Sequence[int], real: Sequence[int]) -> tuple[list[int], dict[int, list[int]]]:
        """How often each result is used, and which are used for the last time by an operation."""
        uses, last, seen = [0] * len(real), dict[int, list[int]](), set[int]()
        for i in reversed(order):
            for j in self._operations[i].inputs:
                source = real[j]
                uses[source] += 1
                if source not in seen:
                    seen.add(source)
                    last.setdefault(i, []).append(source)
        return uses, last

    def _to_keep(
        self, order: Sequence[int], keys: Sequence[int | None], real: Sequence[int], in_use: set[int]
    ) -> dict[int, list[Tensor]]:
        """The results to keep: of those that something takes which varies, the ones worth their memory."""
        kept: dict[int, list[Tensor]] = {}
        seconds: dict[int, float] = {}  # to compute it again from what is there
        for i in order:
            operation = self._operations[i]
            seconds[i] = operation.seconds + max([seconds.get(j, 0.0) for j in operation.inputs], default=0.0)
        for i in dict.fromkeys([real[j] for j in self._candidates]):
            operation, key = self._operations[i], keys[i]
            if key is None or i == _INPUT:
                continue
            operation.sightings.see(key)
            for old in operation.sightings.past():
                self._kept.drop(old)
            if i in seconds and operation.size:
                worth = seconds[i] * operation.sightings.uses
                if self._kept.reserve(key, operation.size, worth, in_use):
                    kept[i] = []
        return kept


def _share_memory(one: Any, other: Any) -> bool:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return False
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
