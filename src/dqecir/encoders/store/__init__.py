"""Stores of image tokens: computed once by the frozen tower, kept on disk, gathered by integer id.

Tokens are stored before ``ln_vision``, which is trained. A store belongs to one tower, one preprocessing and
one number of views, and raises an error for any other. Images are identified by the hash of the file's
bytes, so only a replaced image is encoded again.
"""

from dqecir.encoders.store.tokens import JoinedStore, ReadAhead, Store, TokenStore

__all__ = ["JoinedStore", "ReadAhead", "Store", "TokenStore"]
