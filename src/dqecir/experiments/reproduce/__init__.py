"""Reproduce published results on published data: check, train, measure, compare and report."""
