"""Turn a request into explained results."""
