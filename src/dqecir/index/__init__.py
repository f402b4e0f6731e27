"""Index engines: they store the target embeddings of items, and find the items with the best scores.

``contract.py`` says what every engine does; each engine is one file.
"""
