"""Batch, on Ray Data and Ray Train: features, examples, training, evaluation, precompute."""
