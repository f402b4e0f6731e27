"""Protocols, ranks, metrics and reports."""
