"""One file a method: how it composes a query and what it is trained with. Each registers itself."""
