"""Index engines, which store target tokens and find the best items: one contract, one file for each."""
