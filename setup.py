"""Only how the C extension is built; everything else about the project is in pyproject.toml.

The extension is optional: where it cannot be built Fireside runs on its NumPy kernels. With
FIRESIDE_REQUIRE_KERNELS=1 in the environment a failure is an error instead.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

REQUIRED = os.environ.get("FIRESIDE_REQUIRE_KERNELS", "") not in ("", "0")
OPENMP_FLAGS = (
    (["-fopenmp"], ["-fopenmp"]),
    (["-Xpreprocessor", "-fopenmp"], ["-lomp"]),  # Apple's clang with libomp installed
)
OPENMP_TEST = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
# What a compiler may be too old for. Each test is empty for other machines, where the macro does no
# harm: one build may be for several at once (macOS: arm64 and x86_64).
FEATURE_TEST = """
#if {machine}
#include <{header}>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("{clang}"))), apply_to = function)
#else
#pragma GCC target("{gcc}")
#endif
{function}
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
int main(void) {{ return 0; }}
"""
FEATURES = {
    "FS_HAVE_AVXVNNI": {
        "machine": "defined(__x86_64__)",
        "header": "immintrin.h",
        "clang": "avx2,avxvnni",
        "gcc": "avx2,avxvnni",
        "function": "__m256i dot(__m256i a, __m256i b, __m256i c)"
        " { return _mm256_dpbusd_avx_epi32(a, b, c); }",
    },
    "FS_HAVE_AMX": {
        "machine": "defined(__x86_64__)",
        "header": "immintrin.h",
        "clang": "amx-tile,amx-int8",
        "gcc": "amx-tile,amx-int8",
        "function": "void dot(void) { _tile_dpbssd(0, 1, 2); }",
    },
    "FS_HAVE_DOTPROD": {
        "machine": "defined(__aarch64__)",
        "header": "arm_neon.h",
        "clang": "dotprod",
        "gcc": "arch=armv8.2-a+dotprod",
        "function": "int32x4_t dot(int32x4_t a, int8x16_t b, int8x16_t c)"
        " { return vdotq_s32(a, b, c); }",
    },
}


class BuildNative(build_ext):
    """Finds out what the compiler can do, and goes on without it where it can nothing."""

    def compiles(self, source: str, flags: list[str], link_flags: list[str]) -> bool:
        """Whether a small program compiles and links with these flags."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "test.c"
            path.write_text(source, encoding="utf-8")
            try:
                objects = self.compiler.compile(
                    [str(path)], output_dir=folder, extra_postargs=flags
                )
                self.compiler.link_executable(
                    objects, "test", output_dir=folder, extra_postargs=link_flags
                )
            except Exception:  # whatever the compiler's failure is called in this version
                return False
        return True

    def build_extension(self, ext: Extension) -> None:
        """Build, with OpenMP and the newer instructions where the compiler has them."""
        for flags, link_flags in OPENMP_FLAGS:
            if self.compiles(OPENMP_TEST, flags, link_flags):
                ext.extra_compile_args += flags
                ext.extra_link_args += link_flags
                break
        else:
            sys.stderr.write("fireside: no OpenMP here: the kernels will use one thread\n")
        for macro, feature in FEATURES.items():
            if self.compiles(FEATURE_TEST.format(**feature), [], []):
                ext.define_macros.append((macro, "1"))
        super().build_extension(ext)

    def run(self) -> None:
        """Build; where that fails say so in a line, unless the kernels are required."""
        try:
            super().run()
        except Exception as error:
            if REQUIRED:
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0]
            reason = reason if len(reason) < 100 else reason[:60] + " ... " + reason[-35:]
            sys.stderr.write(
                f"fireside: the C kernels were not built ({reason});"
                " Fireside will run on NumPy, more slowly\n"
            )

    def copy_extensions_to_source(self) -> None:
        """Of an editable install: copy what was built, if anything was."""
        for ext in self.extensions:
            built = Path(self.build_lib) / self.get_ext_filename(self.get_ext_fullname(ext.name))
            if not built.exists():
                return
        super().copy_extensions_to_source()


options: dict[str, Any] = {"bdist_wheel": {"py_limited_api": "cp311"}}
setup(
    cffi_modules=["native/build_native.py:ffibuilder"],
    cmdclass={"build_ext": BuildNative},
    options=options,
)
