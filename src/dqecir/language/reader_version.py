"""The version of the text reader."""

READER_VERSION = 1
"""Version of the rules and word lists in this folder; raise it whenever any text is read differently.

Model folders and the fingerprint of a model contain the version; the fingerprint that indexes store does not.
A test compares readings with a stored file."""
