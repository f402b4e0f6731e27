"""Frozen encoders, their checkpoints, and stores of their image tokens."""
