"""The version and what computes on this machine."""

from __future__ import annotations

import platform
from importlib import metadata


def version() -> str:
    """The version of the installed program."""
    try:
        return metadata.version("fireside")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def version_text() -> str:
    """Two or three lines: version, kernels, Python."""
    from fireside.engine import FiresideError, executors

    lines = [f"fireside {version()}"]
    for name in executors.names():
        try:
            kind = executors.choose(name)
        except FiresideError as error:
            lines.append(f"kernels: {name}: {error.message}")
        else:
            lines.append(f"kernels: {kind.name}{_isa(kind.name)}")
            break
    lines.append(f"python {platform.python_version()}, {platform.system()} {platform.machine()}")
    return "\n".join(lines)


def kernels_text() -> str:
    """The kernels that `auto` takes: "native (avx2)"."""
    from fireside.engine import executors

    name = executors.choose().name
    return f"{name}{_isa(name)}"


def _isa(kernels: str) -> str:
    """An instruction set in brackets, " (avx2)" and the like, for kernels that have a choice."""
    if kernels != "native":
        return ""
    from fireside.engine.executors.native_library import choose_isa

    return f" ({choose_isa()[0]})"
