"""Quantised layers and their slots."""
