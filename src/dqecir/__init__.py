"""dqecir: composed image retrieval. search pictures with a picture and a text."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dqecir.model.composed_model import ComposedModel
    from dqecir.search.retriever import ComposedRetriever

__all__ = ["ComposedModel", "ComposedRetriever"]
__version__ = "0.2.0"

_HOMES = {"ComposedModel": "dqecir.model.composed_model", "ComposedRetriever": "dqecir.search.retriever"}


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import, and ``dqecir --help`` needs neither.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dqecir' has no attribute {name!r}")
