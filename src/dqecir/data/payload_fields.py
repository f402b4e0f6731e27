"""Names of payload fields that belong to the index and are not attributes of the item."""

from __future__ import annotations

PRODUCT = "dqecir:product"
"""Id of the product that a picture shows, in an index of products."""
SOLD_OUT = "dqecir:sold_out"
"""True for an item that is sold out; missing for other items."""
CONTENT = "dqecir:content"
"""SHA-256 of the picture's file, as hex."""
RESERVED = frozenset({"path", PRODUCT, SOLD_OUT, CONTENT})
