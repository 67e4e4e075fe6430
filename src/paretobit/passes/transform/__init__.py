"""Passes that return a new graph."""
