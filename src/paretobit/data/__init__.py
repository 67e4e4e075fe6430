"""Data sets as tensors in memory, split once and for all."""
