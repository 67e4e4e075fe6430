"""Search spaces: what may vary."""
