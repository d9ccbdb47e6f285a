"""How cffi builds fireside.engine._native from the C files here (API mode).

Read by setup.py (`cffi_modules`) from the project's root; `python native/build_native.py` does
nothing. The declarations are those of fireside.h, between its two marks.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

SOURCES = (
    "isa.c",
    "pack.c",
    "step.c",
    "kernels_reference.c",
    "kernels_avx2.c",
    "kernels_avxvnni.c",
    "kernels_avx512.c",
    "kernels_amx.c",
)
# -fno-wrapv: CPython's own flags bring -fwrapv, which stops gcc from vectorising int loops.
# -ffp-contract=off: every result is the same bits on every instruction set, see kernels.h.
# Never -march=native: one extension holds every instruction set and chooses at run time.
FLAGS = ("-O3", "-std=gnu11", "-fno-wrapv", "-fno-math-errno", "-ffp-contract=off", "-Wall")


def declarations() -> str:
    """The part of fireside.h that Python sees."""
    text = Path("native/fireside.h").read_text(encoding="utf-8")
    return text.split("/* cffi begins */")[1].split("/* cffi ends */")[0]


ffibuilder = FFI()
ffibuilder.cdef(declarations())
ffibuilder.set_source(
    "fireside.engine._native",
    '#include "fireside.h"',
    sources=[f"native/{name}" for name in SOURCES],
    include_dirs=["native"],
    depends=[f"native/{p.name}" for p in sorted(Path("native").glob("*.h"))],
    extra_compile_args=list(FLAGS),
    libraries=["m"],
)
