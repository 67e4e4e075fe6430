"""The model zoo of the field, and models on disk."""
