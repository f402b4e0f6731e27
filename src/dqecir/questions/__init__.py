"""A catalogue becomes triplets."""
