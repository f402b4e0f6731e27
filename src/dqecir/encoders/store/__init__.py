"""Image tokens, computed once by the frozen tower, kept on disk, gathered by integer id.

Tokens are kept as they are before ``ln_vision``, which is trained. A store belongs to one tower,
one preprocessing and one number of views, and is refused to any other. Which images it holds is
known by the hash of every file's bytes: a replaced image is computed again, it alone.
"""

from dqecir.encoders.store.tokens import JoinedStore, ReadAhead, Store, TokenStore

__all__ = ["JoinedStore", "ReadAhead", "Store", "TokenStore"]
