"""The model folder: read, written, fingerprinted, converted."""
