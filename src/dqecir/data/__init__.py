"""Data: catalogues, benchmarks, images, and the questions (triplets) of published data sets."""
