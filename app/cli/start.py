"""What makes the program start sooner: it must be done before NumPy is imported."""

from __future__ import annotations

import os

from fireside.app.settings import Settings


def prepare(settings: Settings) -> None:
    """Keep NumPy from starting threads of its own where the C kernels will compute.

    OpenBLAS starts a thread a core when NumPy is imported, which takes some 20 ms and then does
    nothing: with the C kernels no matrix goes through NumPy.
    """
    if settings.kernels != "numpy":
        from fireside.engine.executors.native_library import load

        if not load()[2]:
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
