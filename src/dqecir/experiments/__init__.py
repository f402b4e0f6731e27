"""Experiments: comparisons, reproductions of published results, fits to a catalogue, figures, the demo."""
