"""Encoders of images and texts, their published checkpoints, and stores of image tokens."""
