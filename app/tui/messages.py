"""Messages between the application and its screens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from textual.message import Message

from fireside.app.updates import Update


@dataclass
class Told(Message):
    """What the inference thread told since the last time."""

    updates: Sequence[Update]


@dataclass
class SettingsChanged(Message):
    """The writer has set these otherwise; names as in the settings."""

    values: dict[str, Any]
