"""Fields of an item's payload that are the index's own, and no attributes of the item."""

from __future__ import annotations

PRODUCT = "dqecir:product"
"""The product that a picture shows, in an index whose products may have several pictures."""
SOLD_OUT = "dqecir:sold_out"
"""True for an item that is sold out. Other items do not have it."""
CONTENT = "dqecir:content"
"""SHA-256 of the file of the picture that was encoded."""
RESERVED = frozenset({"path", PRODUCT, SOLD_OUT, CONTENT})
