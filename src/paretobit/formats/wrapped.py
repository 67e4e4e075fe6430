"""A format in whose place another one stands for a while."""

from dataclasses import dataclass, replace

from paretobit.formats.base import Description, Format, Traits


@dataclass(frozen=True, eq=False)
class Wrapped(Format):
    """Does more than the format that it stands for, which it describes; in no registry.

    Args:
        inner: That format.
    """

    inner: Format

    @property
    def traits(self) -> Traits:
        """As of the format, but nothing is to be kept."""
        return replace(self.inner.traits, deterministic=False)

    @property
    def element_bits(self) -> int:
        return self.inner.element_bits

    def describe(self) -> Description:
        return self.inner.describe()
