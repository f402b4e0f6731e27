"""A modification text becomes requested values and numeric constraints."""
