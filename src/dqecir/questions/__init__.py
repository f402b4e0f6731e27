"""Make questions (triplets) from a catalogue."""
