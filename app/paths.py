"""Where Fireside keeps what is the user's: settings, stories, models, logs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from fireside.engine.records import record


@record
class Paths:
    """Where Fireside keeps what is the user's. Nothing is created by asking."""

    config_file: Path
    data_dir: Path
    log_dir: Path

    @property
    def library(self) -> Path:
        """The database of stories."""
        return self.data_dir / "stories.db"

    @property
    def models_dir(self) -> Path:
        """The user's own models folder."""
        return self.data_dir / "models"

    @classmethod
    def find(cls, environ: Mapping[str, str] | None = None) -> Paths:
        """FIRESIDE_CONFIG (a file) and FIRESIDE_DATA_DIR (a folder), else the platform's places."""
        environ = os.environ if environ is None else environ
        config, data = environ.get("FIRESIDE_CONFIG"), environ.get("FIRESIDE_DATA_DIR")
        own_config, own_data, own_log = _places()
        return cls(
            config_file=_path(config) if config else own_config / "config.toml",
            data_dir=_path(data) if data else own_data,
            log_dir=_path(data) / "logs" if data else own_log,
        )


def _places() -> tuple[Path, Path, Path]:
    """The platform's folders for settings, data and logs."""
    if sys.platform == "linux" and "ANDROID_ROOT" not in os.environ:
        # XDG's, as platformdirs has them: to import that takes longer than to read a model's header
        config = os.environ.get("XDG_CONFIG_HOME", "").strip() or "~/.config"
        data = os.environ.get("XDG_DATA_HOME", "").strip() or "~/.local/share"
        state = os.environ.get("XDG_STATE_HOME", "").strip() or "~/.local/state"
        folders = [Path(folder).expanduser() / "fireside" for folder in (config, data, state)]
        return folders[0], folders[1], folders[2] / "log"
    from platformdirs import PlatformDirs

    dirs = PlatformDirs("fireside", appauthor=False)
    return dirs.user_config_path, dirs.user_data_path, dirs.user_log_path


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()
