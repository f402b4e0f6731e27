"""Drawn garments and scenes."""
