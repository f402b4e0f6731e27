"""Recipes, data, the loop and its stages."""
