"""Engines that keep image tokens and find the nearest; one contract, one file an engine."""
