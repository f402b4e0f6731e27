"""A catalogue of one's own, from its table to a searched index, in one command."""
