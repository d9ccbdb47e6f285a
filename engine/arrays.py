"""NumPy, imported when something of it is first used.

Its import takes as long as everything else that Fireside does before a small model's first word,
and where the C kernels compute, a short story needs no array at all. So the modules on a story's
way write `from fireside.engine.arrays import np`, and use it within functions only.
"""

from __future__ import annotations

import importlib

from fireside.engine.hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
else:

    class Later:
        """Stands for the module `numpy`."""

        def __getattr__(self, name: str) -> Any:
            value = getattr(importlib.import_module("numpy"), name)
            setattr(self, name, value)  # the next time it is found without a detour
            return value

    np = Later()

__all__ = ["np"]
