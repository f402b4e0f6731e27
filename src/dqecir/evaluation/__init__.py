"""Measure retrieval: protocols, ranks, metrics and reports."""
