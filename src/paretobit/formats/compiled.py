"""Formats and `torch.compile`: what is compiled, and what stays outside."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from paretobit.errors import ParetoBitError
from paretobit.formats.base import Format
from paretobit.runtime import cpp_compiler

_OPTIONS: dict[str, Any] = {
    "realize_opcount_threshold": 12  # a block's scale is computed once, not for every element (18 copies, now 4)
}
if torch.backends.cpu.get_cpu_capability() == "AVX512":  # for which bit casts become scalar loops
    _OPTIONS["cpp.simdlen"] = 256  # minifloat 9.6 copies, now 2.7; log 12.9, now 3.2

P = ParamSpec("P")
Result = TypeVar("Result")


def compiled(number_format: Format) -> Callable[[Tensor], Tensor]:
    """`quantize` of a format, compiled: the same bits (NaN payloads aside), several times faster.

    Compilation happens at the first call with a dtype and shape. On small tensors it gains nothing.
    Scales that are means or searched for are computed outside the compiled part. Formats that draw
    random numbers draw others than they do eagerly.

    Raises:
        ParetoBitError: There is no C++ compiler on this machine.
    """
    if cpp_compiler() is None:
        raise ParetoBitError("torch.compile needs a C++ compiler, and none was found: set CXX to one")
    call: Any = torch.compile(  # type: ignore[call-overload]
        number_format.quantize, dynamic=False, isolate_recompiles=True, options=_OPTIONS
    )
    return call  # type: ignore[no-any-return]


def outside_graph(function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Call a function, eagerly even from compiled code."""
    if torch.compiler.is_compiling():
        function = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return function(*args, **kwargs)
