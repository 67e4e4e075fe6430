"""Many small cases in one test: `pytest.mark.parametrize` costs each of them more than it computes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest

Test = Callable[..., None]


def each(names: str | tuple[str, ...], cases: Iterable[Any]) -> Callable[[Test], Test]:
    """Call a test with every case, to the end; the first error tells the number of failures and their cases."""
    table = list(cases)
    assert table, "no cases"

    def decorate(test: Test) -> Test:
        def arguments(case: Any) -> dict[str, Any]:
            return {names: case} if isinstance(names, str) else dict(zip(names, case, strict=True))

        @functools.wraps(test)
        def of_all(**fixtures: Any) -> None:
            failed: list[tuple[Any, BaseException]] = []
            for case in table:
                try:
                    test(**fixtures, **arguments(case))
                except (Exception, pytest.fail.Exception) as error:
                    failed.append((case, error))
            if failed:
                first = failed[0][1]
                first.add_note(f"{len(failed)} of {len(table)} cases fail: {[case for case, _ in failed]}")
                raise first

        signature = inspect.signature(test)
        given = set(arguments(table[0]))
        left = [parameter for name, parameter in signature.parameters.items() if name not in given]
        of_all.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return of_all

    return decorate
