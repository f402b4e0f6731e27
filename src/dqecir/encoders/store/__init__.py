"""Stores of image tokens: computed once by the frozen tower, kept on disk, read by the image's number.

Tokens are stored before ``ln_vision``, which is trained. A store belongs to one tower, one preprocessing and
one number of views; any other raises an error. An image is identified by the hash of its file's bytes, so
that only images that were replaced are encoded again.
"""

from dqecir.encoders.store.tokens import JoinedStore, ReadAhead, Store, TokenStore

__all__ = ["JoinedStore", "ReadAhead", "Store", "TokenStore"]
