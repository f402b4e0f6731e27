"""One file a method: how it composes a query and what it is trained with.

Importing this package imports every file in it, so a new method registers itself.
"""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
