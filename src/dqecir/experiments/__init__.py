"""Comparisons, reproductions, fits, figures and the demonstration."""
