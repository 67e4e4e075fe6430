"""Passes that look and leave the graph alone."""
