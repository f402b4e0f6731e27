"""The version of the text reader."""

READER_VERSION = 1
"""Version of the rules and word lists of this room; raise it if any text is read differently.

Model folders and the fingerprint of a model include the version; the fingerprint that indexes depend on does
not. A test compares readings with a stored file.
"""
