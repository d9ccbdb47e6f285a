"""How cffi builds fireside.engine._native from the C files here (API mode).

Read by setup.py (`cffi_modules`) from the project's root; `python native/build_native.py` does
nothing. The declarations are those between the two marks of each header.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

SOURCES = (
    "isa.c",
    "pack.c",
    "convert.c",
    "model.c",
    "cache.c",
    "team.c",
    "step.c",
    "rowwise.c",
    "attention.c",
    "experts.c",
    "kernels_reference.c",
    "kernels_avx2.c",
    "kernels_avxvnni.c",
    "kernels_avx512.c",
    "kernels_amx.c",
    "kernels_neon.c",
    "kernels_neon_dotprod.c",
    "sampler.c",
    "telling.c",
    "bandwidth.c",
    "governor.c",
    "strings.c",
)
HEADERS = (
    "fireside.h",
    "convert.h",
    "sampler.h",
    "telling.h",
    "bandwidth.h",
    "governor.h",
    "strings.h",
)
# -fno-wrapv: CPython's own flags bring -fwrapv, which stops gcc from vectorising int loops.
# -ffp-contract=off: every result is the same bits on every instruction set, see kernels.h.
# -fno-schedule-insns: gcc for ARM would move loads up until a tile's registers do not suffice (for
# x86 it never does; clang has no such flag, and need not say so).
# Never -march=native: one extension holds every instruction set and chooses at run time.
FLAGS = (
    *("-O3", "-std=gnu11", "-fno-wrapv", "-fno-math-errno", "-ffp-contract=off"),
    *("-fno-schedule-insns", "-Wno-ignored-optimization-argument", "-g0", "-Wall"),
)


def declarations() -> str:
    """The parts of the headers that Python sees."""
    texts = (Path("native", name).read_text(encoding="utf-8") for name in HEADERS)
    return "".join(t.split("/* cffi begins */")[1].split("/* cffi ends */")[0] for t in texts)


ffibuilder = FFI()
ffibuilder.cdef(declarations())
ffibuilder.set_source(
    "fireside.engine._native",
    "".join(f'#include "{name}"\n' for name in HEADERS),
    sources=[f"native/{name}" for name in SOURCES],
    include_dirs=["native"],
    depends=[f"native/{p.name}" for p in sorted(Path("native").glob("*.h"))],
    extra_compile_args=list(FLAGS),
    libraries=["m"],
)
