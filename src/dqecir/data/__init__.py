"""Catalogues, benchmarks, images, and the triplets that are made from them."""
