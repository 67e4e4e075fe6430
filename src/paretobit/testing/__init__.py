"""Conformance suites that ship to users."""
