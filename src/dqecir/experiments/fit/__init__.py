"""Fit a model to a user's catalogue: from its table to an index, with one command."""
