"""Spaces, strategies, runners, and the study that remembers."""
