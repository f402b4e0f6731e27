"""Model folders: read, write, fingerprint and convert them."""
