"""Training: recipes, data, the loop and its stages."""
