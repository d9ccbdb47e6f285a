"""The names of `typing` that annotations are made of, without `typing`.

To import that takes 3 ms, a sixteenth of what a small model's story takes to begin, and only type
checkers have a use for it: annotations are never evaluated here. They find the real names in this
module, the program stand-ins. The modules that the first word of a story waits for import from
here (tests/test_start.py holds them to it); anywhere else `typing` is as good.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as a type checker reads it, True

if TYPE_CHECKING:
    from typing import Any as Any
    from typing import ClassVar as ClassVar
    from typing import Literal as Literal
    from typing import NoReturn as NoReturn
    from typing import Protocol as Protocol
    from typing import TypeAlias as TypeAlias
    from typing import TypeGuard as TypeGuard
    from typing import TypeVar as TypeVar
    from typing import cast as cast
    from typing import dataclass_transform as dataclass_transform
    from typing import overload as overload
else:

    class _StandIn:
        """May be called and put before brackets, as in a declaration, and is still itself."""

        def __call__(self, *given, **named):
            return self

        def __getitem__(self, inside):
            return self

    Any = ClassVar = Literal = NoReturn = TypeAlias = TypeGuard = TypeVar = _StandIn()
    Protocol = object

    def cast(kind, value):
        """The value."""
        return value

    def dataclass_transform(**named):
        """A decorator that changes nothing."""
        return lambda decorator: decorator

    def overload(function):
        """The function, which another one of that name follows."""
        return function
