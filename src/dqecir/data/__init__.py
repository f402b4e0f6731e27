"""What is asked of what: catalogues, benchmarks, images, and the triplets they become."""
