"""Runners: what measures."""
