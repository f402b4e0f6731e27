"""Training: recipes, training data, the training loop, and the stages of pretraining."""
