"""The version of the text reader."""

READER_VERSION = 1
"""Version of the rules and word lists of this room; a change of how any text is read raises it.

``tests/language/readings.jsonl`` shows which texts are read otherwise. Model folders name the version, and so
does the fingerprint of a model; the fingerprint that binds indexes does not.
"""
