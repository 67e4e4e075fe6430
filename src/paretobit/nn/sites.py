"""Where functions are quantised: while a model runs, chosen calls of functions are computed by modules.

A site is the path of the calling module, the function, and a number (`encoder.attention.matmul_1`),
as `ModelGraph` names them. Which call is meant is told by its place in the code
(`paretobit.graph.places`), whatever else a run calls; where no place is known (models saved before
places were kept), by the number among the calls of that function by that module. `add_site` puts a
`QuantizedFunction` there, without a trace in the state dict. Nothing is intercepted unless one of
them carries a format.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

from torch import fx, nn
from torch.overrides import TorchFunctionMode

from paretobit.errors import BadInput, ParetoBitError
from paretobit.graph.operations import OPERATIONS
from paretobit.graph.places import counted, place_of
from paretobit.nn.cache import TensorCache
from paretobit.nn.functions import QuantizedFunction, read_site
from paretobit.nn.layers import instrument
from paretobit.nn.quantized import Quantized
from paretobit.nn.subclass import is_ordinary

NameOf = Callable[[Any], str]
"""From a torch function, as a mode sees it, to the name of its operation. Must survive pickling."""

_Calls = dict[str, dict[str, dict[str | int, QuantizedFunction]]]
"""Caller to function to place, or number, to what computes the call."""


class SiteNotReached(ParetoBitError):
    """A function that carries formats was not called: the run differs from the one that was traced."""


class Sites:
    """The sites of one model; shared by the modules that call them.

    Args:
        name_of: What counts as which function.

    Attributes:
        functions: Path of each site to what computes its call.
        paused: While True nothing is intercepted: who traces a model wants the functions themselves.
    """

    is_no_state: ClassVar[bool] = True  # of a model

    def __init__(self, name_of: NameOf) -> None:
        self.name_of = name_of
        self.functions: dict[str, QuantizedFunction] = {}
        self.paused = False
        self._running = False

    def active(self) -> bool:
        """Whether a run that starts now has calls to compute with formats."""
        if self._running or self.paused:
            return False
        return any(function.active for function in self.functions.values())

    @contextmanager
    def intercepting(self, outermost: nn.Module, path: str) -> Iterator[None]:
        """Inside the block, a run of the module `outermost` at `path`, calls at active sites are intercepted.

        Raises:
            SiteNotReached: The run ended and an active site within the module was not called.
        """
        expected = {s: f for s, f in self.functions.items() if f.active and _within(f.caller, path)}
        mode = _Interception(self.name_of, expected.values())
        self._running = True
        try:
            with ExitStack() as stack:
                for inner, module in outermost.named_modules(prefix=path):
                    stack.callback(module.register_forward_pre_hook(mode.enter(inner)).remove)
                    stack.callback(module.register_forward_hook(mode.leave(inner), always_call=True).remove)
                stack.enter_context(mode)
                yield
        finally:
            self._running = False
        missed = [site for site, function in expected.items() if function not in mode.reached]
        if missed:
            _, _, where = expected[missed[0]].place.rpartition("> ")
            raise SiteNotReached(
                f"the function '{missed[0]}' carries formats and was not called in this run: the model runs otherwise "
                "than when it was traced" + (f", or its code was changed: it was called at {where}" if where else "")
            )


class _Interception(TorchFunctionMode):
    """Sees every function call of one run and follows which module makes it."""

    def __init__(self, name_of: NameOf, functions: Any) -> None:
        super().__init__()
        self.reached: set[QuantizedFunction] = set()
        self._name_of = name_of
        self._path: list[str] = []
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._calls: _Calls = defaultdict(lambda: defaultdict(dict))
        for function in functions:
            self._calls[function.caller][function.op][function.place or function.number] = function

    def enter(self, path: str) -> Callable[..., None]:
        """A forward pre-hook."""

        def hook(module: nn.Module, args: Any) -> None:
            self._path.append(path)

        return hook

    def leave(self, path: str) -> Callable[..., None]:
        """A forward hook; it also runs where an earlier pre-hook failed and `path` was not entered."""

        def hook(module: nn.Module, args: Any, result: Any) -> None:
            if self._path and self._path[-1] == path:
                self._path.pop()

        return hook

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        caller = self._path[-1] if self._path else ""
        named = kwargs or {}
        if caller not in self._calls:
            return func(*args, **named)
        op = self._name_of(func)
        if op not in self._calls[caller]:
            return func(*args, **named)
        function = self._meant(caller, op, place_of(sys._getframe(1)))
        if function is None:
            return func(*args, **named)
        self.reached.add(function)
        return function(*args, function=func, **named)

    def _meant(self, caller: str, op: str, place: str) -> QuantizedFunction | None:
        """What computes this call: the one that is known by its place, or else by its number."""
        here, number = self._counts[caller, op, place], self._counts[caller, op, ""]
        self._counts[caller, op, place] += 1
        self._counts[caller, op, ""] += 1
        known = self._calls[caller][op]
        return known.get(counted(place, here)) or known.get(number)


class Caller(nn.Module):
    """Mixin of a module that calls functions with formats, and of the model around it.

    Its names are its own: the module may have any others.
    """

    _site_kind: ClassVar[type[nn.Module]]
    _site_calls: Sites
    _site_path: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the module; the outermost one intercepts the calls of all that it calls."""
        if not self._site_calls.active() or any(isinstance(v, fx.Proxy) for v in (*args, *kwargs.values())):
            return super().__call__(*args, **kwargs)
        with self._site_calls.intercepting(self, self._site_path):
            return super().__call__(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As the plain module, with its class made anew."""
        plainly: Any = super().__reduce_ex__(max(int(protocol), 2))
        _, (_, *arguments), *rest = plainly
        return _new_caller, (self._site_kind, *arguments), *rest


_CALLERS: dict[type[nn.Module], type[Caller]] = {}


def _calling(kind: type[nn.Module]) -> type[Caller]:
    """The class of a module of this class that calls sites; it goes by the same name."""
    if kind not in _CALLERS:
        same = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        own = {**same, "_site_kind": kind}
        made = _CALLERS[kind] = type(kind.__name__, (Caller, kind), own)
        for name in [n for n in vars(made) if n not in own and not n.startswith("__") and hasattr(kind, n)]:
            delattr(made, name)  # what `__init_subclass__` put there, a wrapped forward: `kind` has it
    return _CALLERS[kind]


def _new_caller(kind: Any, *arguments: Any) -> Any:
    made = _calling(kind)
    return made.__new__(made, *arguments)


def why_no_site(model: nn.Module, site: str) -> str | None:
    """Why there can be no site of this path in a model; None where there can."""
    path, _, name = site.rpartition(".")
    caller = model.get_submodule(path)
    if hasattr(caller, name) and not isinstance(getattr(caller, name), QuantizedFunction):
        return f"its caller has another attribute '{name}'"
    if isinstance(caller, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return f"its caller is a {type(caller).__name__}, whose modules have a meaning"
    for module in (model, caller):
        if not is_ordinary(module._site_kind if isinstance(module, Caller) else type(module)):
            return f"a {type(module).__name__} copies itself in its own way, without its sites"
    return None


def add_site(model: nn.Module, site: str, cache: TensorCache, name_of: NameOf, place: str = "") -> QuantizedFunction:
    """The module that quantises the function at a site, made and put there if need be, at full precision.

    Args:
        model: The model that the site is a path of; changed in place.
        site: Caller, function and number.
        cache: For operands that are parameters.
        name_of: What counts as which function; of the first site of a model.
        place: Where the call is, as the graph says; empty: the number in the site tells.

    Raises:
        BadInput: No such caller or function, or it cannot have a site.
    """
    inside, op, number = read_site(site)
    paths = dict(model.named_modules(remove_duplicate=False))
    caller = paths.get(inside)
    if caller is None or not OPERATIONS.operands(op):
        raise BadInput("the model has no such layer", found=site, allowed=filter(None, paths))
    present = caller._modules.get(site.rpartition(".")[2])
    if isinstance(present, QuantizedFunction):
        return _at_place(present, site, place)
    reason = why_no_site(model, site)
    if reason is not None:
        raise BadInput(f"the function '{site}' cannot be quantised: {reason}")
    sites = _become_caller(model, "", Sites(name_of))
    outer = model.__dict__["_site_path"]  # of a part of a model with sites
    path = ".".join(filter(None, (outer, inside)))
    _become_caller(caller, path, sites)
    function = QuantizedFunction(op, number, path, cache, place)
    name = site.rpartition(".")[2]
    caller.add_module(name, function.train(caller.training))
    sites.functions[".".join(filter(None, (path, name)))] = function
    return function


def _at_place(function: QuantizedFunction, site: str, place: str) -> QuantizedFunction:
    """A function that is there, if it is meant; one that carries no formats may come to mean another call."""
    if place and function.place != place:
        if function.active and function.place:
            raise BadInput(f"the function '{site}' carries formats already, for another call", found=function.place)
        function.place = function.place if function.active else place
    return function


def places_of(model: nn.Module) -> dict[str, str]:
    """The places of the functions of a model that carry formats, by site."""
    functions = {p: m for p, m in model.named_modules() if isinstance(m, QuantizedFunction)}
    return {site: function.place for site, function in functions.items() if function.active and function.place}


def instrument_at(model: nn.Module, path: str, cache: TensorCache, name_of: NameOf, place: str = "") -> Quantized:
    """The quantised layer at a path, or the quantised function at a site and place, made if need be.

    Raises:
        BadInput: There is no such layer or function, or it cannot be quantised.
    """
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return add_site(model, path, cache, name_of, place)
    return _at_place(module, path, place) if isinstance(module, QuantizedFunction) else instrument(module, cache)


def layer_at(model: nn.Module, path: str) -> Quantized | None:
    """The quantised layer or function at a path; None where what is there is not quantised."""
    module: nn.Module | None = model
    for name in path.split(".") if path else ():
        module = None if module is None else module._modules.get(name)  # `get_submodule` takes 10 times as long
    return module if isinstance(module, Quantized) else None


def _become_caller(module: nn.Module, path: str, sites: Sites) -> Sites:
    """Make a module a caller, in place, unless it is one; the sites that it calls."""
    if not isinstance(module, Caller):
        module.__class__ = _calling(type(module))
        assert isinstance(module, Caller)
        module._site_calls, module._site_path = sites, path
    return module._site_calls


def _within(path: str, outer: str) -> bool:
    return not outer or path == outer or path.startswith(outer + ".")
