"""What tensors hold: whether one has changed is known by its bits.

A tensor's version is no answer: fused optimisers, `.data`, NumPy and inference mode do not raise it. It
is trusted only in a block (`unchanged`) of somebody who knows that nobody else writes.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_numbers = itertools.count()
_block: ContextVar[object | None] = ContextVar("unchanged", default=None)


@contextmanager
def unchanged() -> Iterator[None]:
    """Inside the block, a tensor that was compared once is compared again only when its version is another.

    For whoever runs a model several times while nobody writes behind torch's back.
    """
    token = _block.set(_block.get() or object())
    try:
        yield
    finally:
        _block.reset(token)


def as_integers(tensor: Tensor) -> Tensor:
    """The bits of a tensor: the same memory as integers of the same width."""
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real.view(_INTEGERS[real.element_size()])


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same type, shape and place, and hold the same bits."""
    if one.dtype != other.dtype or one.shape != other.shape or one.device != other.device:
        return False
    if one.device.type == "cpu" and one.is_contiguous() and other.is_contiguous():
        return bool(_compare(one.data_ptr(), other.data_ptr(), one.nbytes) == 0)
    if one.device.type == "meta":
        return True
    if one.layout != torch.strided or other.layout != torch.strided:
        return one.layout == other.layout and torch.equal(one.to_dense(), other.to_dense())
    return torch.equal(as_integers(one.detach()), as_integers(other.detach()))


def digest(tensors: Iterable[Tensor]) -> str:
    """A digest of what tensors hold, the same in every process."""
    found = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


class Content:
    """The bits that a tensor held when it was looked at.

    Args:
        tensor: The tensor.
        like: Another one, that never changes: what equals it needs no copy.

    Attributes:
        copy: The bits.
        number: Theirs: whatever is seen to have it holds the same bits.
    """

    def __init__(self, tensor: Tensor, like: Tensor | None = None) -> None:
        self.number = next(_numbers)
        with torch.inference_mode(False), torch.no_grad():
            self.copy = like.detach() if like is not None and same_bits(tensor, like) else tensor.detach().clone()
        self._source, self._seen = weakref.ref(tensor), seen_in_block(tensor)
        dense = self.copy.device.type == "cpu" and self.copy.is_contiguous()
        self._memory = (self.copy.data_ptr(), self.copy.nbytes) if dense else None

    def is_of(self, tensor: Tensor) -> bool:
        """Whether it was this very tensor that was looked at."""
        return self._source() is tensor

    def is_in(self, tensor: Tensor) -> bool:
        """Whether a tensor holds these bits: `holds`, or in a block that they were seen in."""
        seen = seen_in_block(tensor)
        if seen is not None and seen == self._seen and self._source() is tensor:
            return True
        if not self.holds(tensor):
            return False
        if self._source() is not tensor:
            self._source = weakref.ref(tensor)
        self._seen = seen
        return True

    def holds(self, tensor: Tensor) -> bool:
        """Whether they are in a tensor: `same_bits`, in a third of the time."""
        copy, memory = self.copy, self._memory
        if memory is None or not tensor.is_contiguous() or not tensor.is_cpu:
            return same_bits(tensor, copy)
        alike = tensor.dtype is copy.dtype and tensor.shape == copy.shape
        return alike and not _compare(tensor.data_ptr(), *memory)


def seen_in_block(tensor: Tensor) -> tuple[Any, ...] | None:
    """What stays the same in a block `unchanged` while torch sees no write; None outside of one."""
    block = None if torch.compiler.is_compiling() else _block.get()
    return None if block is None or tensor.is_inference() else (block, tensor._version, tensor.data_ptr())


_known: WeakValueDictionary[int, Content] = WeakValueDictionary()


def known_content(tensor: Tensor) -> Content | None:
    """What a tensor holds, where somebody keeps a `Content` of it that still holds."""
    content = _known.get(id(tensor))
    return content if content is not None and content.is_of(tensor) and content.is_in(tensor) else None


def content_of(tensor: Tensor, like: Tensor | None = None) -> Content:
    """What a tensor holds: the same object for all who ask, as long as one of them keeps it and it holds.

    Args:
        tensor: The tensor.
        like: As for `Content`.
    """
    content = known_content(tensor)
    if content is None:
        content = _known[id(tensor)] = Content(tensor, like)
    return content


def _comparison() -> Any:
    """`memcmp` of the C library."""
    library = ctypes.CDLL("msvcrt" if hasattr(ctypes, "WinDLL") else None)
    compare = library.memcmp
    compare.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    return compare


_compare = _comparison()
