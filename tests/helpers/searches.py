"""Searches of a small tagger on the embedded digits: what they share, to be followed by their space."""

TRAINED = """
[model]
name = "jsc-tiny"
[data]
name = "digits"
[train]
max_epochs = 3
learning_rate = 1e-2
[search]
maximize = "accuracy"
minimize = "bitops"
"""
LINEAR = """
[search.space]
by = "type"
[search.space.seed.linear]
"""
