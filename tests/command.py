"""The `fireside` command as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# With the settings that suit the storyteller a random model comes to an end after a few words.
SAMPLERS = {"FIRESIDE_TEMPERATURE": "0.8", "FIRESIDE_FREQUENCY_PENALTY": "0"}
COMMAND = [sys.executable, "-m", "fireside.app"]


@dataclass(frozen=True)
class Cli:
    """Runs `fireside` with settings, stories and models in a folder of its own."""

    home: Path
    model: Path

    @property
    def config(self) -> Path:
        return self.home / "config.toml"

    def env(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FIRESIDE_")}
        own = {"FIRESIDE_DATA_DIR": str(self.home), "FIRESIDE_CONFIG": str(self.config)}
        return {**kept, **own, **SAMPLERS, "FIRESIDE_MODEL": str(self.model), **(more or {})}

    def __call__(
        self, *arguments: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        command = [*COMMAND, *map(str, arguments)]
        return subprocess.run(
            command, input=stdin, capture_output=True, env=self.env(env), timeout=120, check=False
        )

    def start(
        self, *arguments: str, stdin: int = subprocess.DEVNULL, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env(env),
        )
