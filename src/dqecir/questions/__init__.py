"""Make questions from a catalogue: a reference, a modification text, a target and all right answers."""
