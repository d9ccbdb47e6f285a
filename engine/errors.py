"""The errors a person can cause. Each has a message (what is wrong) and a hint (what to do)."""

from __future__ import annotations


class FiresideError(Exception):
    """Base of every error that the command line shows as one line.

    `message` says what is wrong and with what; `hint` says what to do about it (may be empty).
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class CheckpointError(FiresideError):
    """A model or tokenizer file is missing, unreadable, damaged or of an unknown kind."""


class UnsupportedError(CheckpointError):
    """A file is sound, but holds something this version cannot run."""


class ContextOverflowError(FiresideError):
    """The prompt does not fit into the context window and may not be shortened."""


class KernelsError(FiresideError):
    """The kernels asked for are not available on this machine."""


class SamplingError(FiresideError, ValueError):
    """A sampler parameter is out of its range."""


def not_finite() -> SamplingError:
    """For logits that nothing can be drawn from."""
    return SamplingError("the model gave numbers that are not finite", "its file may be damaged")
