"""Number formats: pure functions on tensors that know nothing of models."""
