"""`record`: what @dataclass(frozen=True) makes of a class, made in a fifth of the time.

dataclasses writes five methods for every class and compiles each, 0.4 ms together in CPython 3.11,
and takes with it `inspect`, another 6. For the classes that stand on the way to a story's first
word that is longer than a small model takes to load. Here only __init__ is written; the other
methods are the same for all. What may change is a class of its own, or a dataclass.

dataclasses' own fields(), replace() and asdict() take records too. Whoever imports nothing else of
that module uses `changed`, which is replace().
"""

from __future__ import annotations

from fireside.engine.hints import Any, TypeVar, dataclass_transform

T = TypeVar("T")


class _Methods:
    """What all records share."""

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__qualname__}({values})"

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is a record: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is a record: {name} cannot be deleted")


FEW = 64  # of a kind that are made without a compiled __init__: it takes as long as some fifty
METHODS = ("__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__")


class _Fields:
    """Stands for `__dataclass_fields__` until a function of dataclasses looks there."""

    def __init__(self, defaults: dict[str, Any]) -> None:
        self.defaults = defaults

    def __get__(self, one: object, kind: type[Any]) -> dict[str, Any]:
        from dataclasses import field, make_dataclass
        from functools import partial

        owner = next(c for c in kind.__mro__ if vars(c).get("__dataclass_fields__") is self)
        entries = []
        for name, type_name in owner.__annotations__.items():
            given: Any = {"default_factory": partial(self.defaults.get, name)}  # {} as well
            entries.append((name, type_name, field(**given if name in self.defaults else {})))
        made = make_dataclass(owner.__name__, entries)
        fields: dict[str, Any] = vars(made)["__dataclass_fields__"]
        setattr(owner, "__dataclass_fields__", fields)  # noqa: B010
        return fields


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """Class decorator: the annotated names are fields, in order; values behind = are defaults.

    A default must not be a thing that can change. __post_init__ is called where there is one.
    """
    names = list(cls.__annotations__)
    defaults = {name: vars(cls)[name] for name in names if name in vars(cls)}
    parameters = (f"{name}=_{name}" if name in defaults else name for name in names)
    values = ", ".join(f"{name}={name}" for name in names)
    body = f"self.__dict__.update({values})"
    post_init = getattr(cls, "__post_init__", None)
    if post_init:
        body += "; self.__post_init__()"
    source = f"def __init__(self, {', '.join(parameters)}): {body}"

    left = FEW

    def by_hand(self: object, *args: Any, **kwargs: Any) -> None:
        """__init__ of the first few; it is compiled for more, and for what is wrong with a call."""
        nonlocal left
        left -= 1
        values = dict(zip(names, args, strict=False))
        whole = len(args) <= len(names) and values.keys().isdisjoint(kwargs)
        if len(values) < len(names) or kwargs:
            given = {**defaults, **values, **kwargs}
            whole = whole and given.keys() == set(names)
            values = {name: given[name] for name in names} if whole else {}
        if whole and left:
            self.__dict__.update(values)
            if post_init:
                post_init(self)
            return
        made: dict[str, Any] = {}
        exec(source, {f"_{name}": value for name, value in defaults.items()}, made)
        setattr(cls, "__init__", made["__init__"])  # noqa: B010  (mypy: as below)
        made["__init__"](self, *args, **kwargs)

    setattr(cls, "__init__", by_hand)  # noqa: B010  (mypy takes it for a method call)
    setattr(cls, "__match_args__", tuple(names))  # noqa: B010
    setattr(cls, "__dataclass_fields__", _Fields(defaults))  # noqa: B010
    for name in METHODS:
        if name not in vars(cls) or name == "__hash__":
            setattr(cls, name, vars(_Methods)[name])
    return cls


def changed(one: T, **values: Any) -> T:
    """A copy of a record with other values; TypeError where it has no such field."""
    return type(one)(**{**vars(one), **values})
