"""Tests to inherit: whoever adds a number format proves with one fixture that it keeps every promise.

Needs pytest and hypothesis: `pip install 'paretobit[testing]'`.
"""

from paretobit.runtime import optional

for _package in ("pytest", "hypothesis"):
    optional(_package, extra="testing", purpose="paretobit.testing")

import pytest  # noqa: E402 (after the message that says how to get it)

for _module in ("conformance", "statements", "tensors", "values", "gradients", "inputs"):
    pytest.register_assert_rewrite(f"paretobit.testing.{_module}")  # failures show the values compared

from paretobit.testing.conformance import FormatConformance  # noqa: E402

__all__ = ["FormatConformance"]
