"""Quantised recurrent layers and cells.

`weight` and `bias` are all those of every layer and direction. `data_in` is what is multiplied by
weights: the input of each layer, the state that each step takes from the one before, and what the
projection of the state takes. What is only mixed element by element stays float: the gates, the cell
state of an LSTM, the state that a GRU carries on.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from paretobit.formats import FULL
from paretobit.nn.quantized import Quantized, classes_for, slot_of_parameter, stands_for

State = tuple[Tensor, ...]
"""The hidden state, and of an LSTM the cell state: `(layers, rows, size)`, or `(rows, size)` of one layer."""


class _Recurrent(Quantized):
    """What layers and cells share: one step."""

    def _step(self, mode: str, gates: Tensor, state: State, hh: State, projection: State) -> State:
        """The next state.

        Args:
            mode: `LSTM`, `GRU`, `RNN_TANH` or `RNN_RELU`.
            gates: What the input adds to each gate, its bias included.
            state: The last state.
            hh: Weight of the state, and its bias where there is one.
            projection: Weight that makes the hidden state smaller, where there is one.
        """
        recurrent = F.linear(self.data("data_in", state[0]), *hh)
        if mode == "LSTM":
            return self._lstm(gates + recurrent, state[1], projection)
        if mode == "GRU":
            return (_gru(gates, recurrent, state[0]),)
        total = gates + recurrent
        return (total.relu() if mode == "RNN_RELU" else total.tanh(),)

    def _lstm(self, gates: Tensor, cell: Tensor, projection: State) -> State:
        enter, forget, new, out = gates.chunk(4, -1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        hidden = out.sigmoid() * cell.tanh()
        return (F.linear(self.data("data_in", hidden), *projection) if projection else hidden), cell

    def _operand(self, name: str) -> Tensor:
        """A parameter through the format of its slot."""
        value = getattr(self, name)
        result: Tensor = self.stored(slot_of_parameter(name), value, part=id(value))
        return result


def _gru(gates: Tensor, recurrent: Tensor, state: Tensor) -> Tensor:
    given, carried = gates.chunk(3, -1), recurrent.chunk(3, -1)
    reset, update = (given[0] + carried[0]).sigmoid(), (given[1] + carried[1]).sigmoid()
    new = (given[2] + reset * carried[2]).tanh()
    return (state - new) * update + new


class _QuantizedRecurrent(_Recurrent):
    """`nn.LSTM`, `nn.GRU` or `nn.RNN`: torch's own kernel while the data is float, step by step where it is not."""

    mode: str
    num_layers: int
    hidden_size: int
    proj_size: int
    batch_first: bool
    bidirectional: bool
    dropout: float
    bias: bool
    _all_weights: list[list[str]]
    _flat_weights_names: list[str]
    check_forward_args: Any
    permute_hidden: Any
    _update_flat_weights: Any

    def forward(self, input: Any, hx: Any = None) -> Any:
        """As torch's; see there for shapes."""
        if not self.carries_formats:
            return super().forward(input, hx)
        self._update_flat_weights()
        if self.slots["data_in"] is FULL:
            return self._fused(input, hx)
        return self._stepwise(input, hx)

    def _fused(self, input: Any, hx: Any) -> Any:
        """The kernel of torch on quantised parameters, which a copy that shares all else holds."""
        kind = stands_for(type(self))
        other = kind.__new__(kind)
        weights = [self._operand(name) for name in self._flat_weights_names]
        given = {"_flat_weights": weights, "_flat_weight_refs": [None] * len(weights)}  # not to be looked up again
        other.__dict__.update(self.__dict__, **given)
        return kind.forward(other, input, hx)

    def _stepwise(self, input: Any, hx: Any) -> Any:
        packed = isinstance(input, PackedSequence)
        data, sizes, order, back = input if packed else (input, None, None, None)
        single = not packed and data.dim() == 2
        across = self.batch_first and not packed
        if single:
            data = data.unsqueeze(0 if across else 1)
        state = self._start(data, hx, sizes, order, single)
        self.check_forward_args(data, state if self.mode == "LSTM" else state[0], sizes)
        counts = None if sizes is None else sizes.tolist()
        data, state = self._layers(data.transpose(0, 1) if across else data, counts, state)
        data = data.transpose(0, 1) if across else data
        if single:
            data, state = data.squeeze(0 if across else 1), tuple(part.squeeze(1) for part in state)
        result = PackedSequence(data, sizes, order, back) if packed else data
        state = tuple(self._reordered(part, back) for part in state)
        return result, state if self.mode == "LSTM" else state[0]

    def _start(self, data: Tensor, hx: Any, sizes: Tensor | None, order: Tensor | None, single: bool) -> State:
        """The state before the first step: as given, or zeros."""
        if hx is not None:
            given = hx if self.mode == "LSTM" else (hx,)
            return tuple(self._reordered(part.unsqueeze(1) if single else part, order) for part in given)
        rows = int(sizes[0]) if sizes is not None else data.size(0 if self.batch_first else 1)
        widths = (self.proj_size or self.hidden_size, self.hidden_size)
        parts = len(self._all_weights)
        return tuple(data.new_zeros(parts, rows, width) for width in widths[: 2 if self.mode == "LSTM" else 1])

    def _layers(self, x: Tensor, sizes: list[int] | None, state: State) -> tuple[Tensor, State]:
        """All layers on `(steps, rows, size)` or on packed rows; the last output and all last states."""
        last: list[State] = []
        directions = 2 if self.bidirectional else 1
        for layer in range(self.num_layers):
            outputs = []
            data = self.data("data_in", x) if sizes else self.data("data_in", x.transpose(0, 1)).transpose(0, 1)
            for direction in range(directions):
                own = tuple(part[len(last)] for part in state)
                steps, end = self._direction(data, sizes, own, self._all_weights[len(last)], direction == 1)
                outputs.append(torch.cat(steps) if sizes else torch.stack(steps))
                last.append(end)
            x = torch.cat(outputs, -1) if directions > 1 else outputs[0]
            if layer + 1 < self.num_layers and self.dropout:
                x = F.dropout(x, self.dropout, self.training)
        return x, tuple(torch.stack(parts) for parts in zip(*last, strict=True))

    def _direction(
        self, data: Tensor, sizes: list[int] | None, state: State, names: Sequence[str], backwards: bool
    ) -> tuple[list[Tensor], State]:
        """One layer in one direction: the hidden state of each step, and the last state.

        Rows that have ended keep their state, and rows that come later have the first one.
        """
        weights = [self._operand(name) for name in names]
        biases = weights[2:4] if self.bias else []
        projection = tuple(weights[4 if self.bias else 2 :])
        gates = F.linear(data, weights[0], *biases[:1])
        hh = (weights[1], *biases[1:])
        of_step = torch.split(gates, sizes) if sizes else gates.unbind(0)
        steps = []
        for own in reversed(of_step) if backwards else of_step:
            now = self._step(self.mode, own, tuple(part[: len(own)] for part in state), hh, projection)
            steps.append(now[0])
            rest = tuple(part[len(own) :] for part in state)
            state = tuple(torch.cat(both) if len(both[1]) else both[0] for both in zip(now, rest, strict=True))
        return steps[::-1] if backwards else steps, state

    def _reordered(self, part: Tensor, order: Tensor | None) -> Tensor:
        return part if order is None else part.index_select(1, order)


class _QuantizedCell(_Recurrent):
    """`nn.LSTMCell`, `nn.GRUCell` or `nn.RNNCell`."""

    hidden_size: int

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """As torch's; see there for shapes."""
        if not self.carries_formats:
            return super().forward(input, hx)
        mode = self._mode
        state = (hx if mode == "LSTM" else (hx,)) if hx is not None else self._zeros(input, mode)
        ih, hh = self._operands("ih"), self._operands("hh")
        gates = F.linear(self.data("data_in", input), *ih)
        result = self._step(mode, gates, state, hh, ())
        return result if mode == "LSTM" else result[0]

    @property
    def _mode(self) -> str:
        if isinstance(self, nn.RNNCell):
            return f"RNN_{self.nonlinearity.upper()}"
        return "LSTM" if isinstance(self, nn.LSTMCell) else "GRU"

    def _zeros(self, input: Tensor, mode: str) -> State:
        zeros = input.new_zeros(*input.shape[:-1], self.hidden_size)
        return (zeros, zeros) if mode == "LSTM" else (zeros,)

    def _operands(self, which: str) -> State:
        names: Iterator[str] = (f"{part}_{which}" for part in ("weight", "bias"))
        return tuple(self._operand(name) for name in names if getattr(self, name) is not None)


RECURRENT = (
    *classes_for(_QuantizedRecurrent, (nn.LSTM, nn.GRU, nn.RNN), globals()),
    *classes_for(_QuantizedCell, (nn.LSTMCell, nn.GRUCell, nn.RNNCell), globals()),
)
