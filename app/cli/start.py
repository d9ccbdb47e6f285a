"""What makes the program start sooner: it must be done before the engine is imported."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from fireside.app.settings import Settings


def prepare(settings: Settings) -> None:
    """Keep NumPy from starting threads of its own where the C kernels will compute.

    OpenBLAS starts a thread a core when NumPy is imported, which takes some 20 ms and then does
    nothing: with the C kernels no matrix goes through NumPy.
    """
    if settings.kernels != "numpy" and _built():
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _built() -> bool:
    """Whether the C extension is there, without importing the engine."""
    spec = importlib.util.find_spec("fireside.engine")
    folders = spec.submodule_search_locations or () if spec else ()
    return any(any(Path(folder).glob("_native.*")) for folder in folders)
