"""Every public method says what it does: itself, or in the words of the class that it overrides."""

import importlib
import inspect
import pkgutil

import pytest

import paretobit

MODULES = [m.name for m in pkgutil.walk_packages(paretobit.__path__, "paretobit.") if not m.name.endswith("__main__")]


def public_methods(module):
    """Class and name of what the classes of a module define; a test for users says it in its name."""
    for cls in vars(module).values():
        if not inspect.isclass(cls) or cls.__module__ != module.__name__ or cls.__name__.startswith("_"):
            continue
        for name, member in vars(cls).items():
            function = getattr(member, "fget", None) or getattr(member, "__func__", member)
            function = getattr(function, "func", function)  # of a cached property
            written = inspect.isfunction(function) and function.__module__ == module.__name__
            if written and not name.startswith(("_", "test_")):
                yield cls, name


@pytest.mark.parametrize("name", MODULES)
def test_every_public_method_has_a_docstring_or_inherits_one(name):
    silent = [
        f"{cls.__name__}.{method}"
        for cls, method in public_methods(importlib.import_module(name))
        if len(docstring(cls, method).split()) < 2
    ]
    assert not silent


def docstring(cls, method):
    """What the class or the nearest base that has words for it says of a method."""
    documented = (vars(base).get(method) for base in cls.__mro__)
    return next((doc for member in documented if member is not None and (doc := inspect.getdoc(member))), "")


def test_a_method_that_says_nothing_is_found():
    class Base:
        def kept(self):
            """What it does."""

        def silent(self): ...

    class Sub(Base):
        def kept(self): ...

        def silent(self): ...

    assert docstring(Sub, "kept") == "What it does."
    assert docstring(Sub, "silent") == ""
