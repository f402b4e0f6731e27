"""Frozen encoders, their checkpoints, and the store of their image tokens."""
