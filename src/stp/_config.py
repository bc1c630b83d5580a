"""Config dataclasses from plain JSON or TOML values, whose names, types and sizes are checked."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

MOST, MOST_LAYERS, MOST_VALUES = (
    2**16,
    1000,
    2**16,
)  # far beyond any model; what asks for more is damaged or malicious


def from_dict(config_class: type, values: dict[str, Any]) -> Any:
    """Build a config dataclass, nested ones included, from plain values.

    Raises
    ------
    ValueError
        A name is unknown, or a value is of another type than the field.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{config_class.__name__} is made of names and values, not of {values!r}")
    hints = typing.get_type_hints(config_class)
    if unknown := sorted(set(values) - {field.name for field in dataclasses.fields(config_class)}):
        raise ValueError(f"{config_class.__name__} has no {unknown}; it has {sorted(hints)}")
    return config_class(
        **{name: _value(name, hints[name], value) for name, value in values.items()}
    )


def _value(name: str, hint: Any, value: Any) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is not None and isinstance(kinds[0], type) and dataclasses.is_dataclass(kinds[0]):
        return from_dict(kinds[0], value)
    if not any(_is_of(kind, value) for kind in kinds):
        wanted = " or ".join(_called(kind) for kind in kinds if kind is not types.NoneType)
        raise ValueError(f"{name} must be {wanted}, not {value!r}")
    if isinstance(value, list):
        inner = next(iter(typing.get_args(hint)), Any)  # Phase of tuple[Phase, ...]
        return tuple(_value(name, inner, one) for one in value)
    return value


def _called(kind: Any) -> str:
    return "a list" if typing.get_origin(kind) is tuple else getattr(kind, "__name__", str(kind))


def _is_of(kind: Any, value: Any) -> bool:
    kind = typing.get_origin(kind) or kind
    if kind in (int, float) and isinstance(value, bool):
        return False
    wider: dict[Any, Any] = {Any: object, float: (int, float), tuple: (list, tuple)}
    return isinstance(value, wider.get(kind, kind))


def require_positive(config: Any, *names: str) -> None:
    """Refuse values that are zero, negative or no number."""
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be positive, not {getattr(config, name)}")


def require_not_negative(config: Any, *names: str) -> None:
    """Refuse values that are negative or no number."""
    for name in names:
        if not getattr(config, name) >= 0:
            raise ValueError(f"{name} must not be negative, but it is {getattr(config, name)}")


def check_sizes(values: Any) -> None:
    """Refuse a config that asks for absurd sizes, or to fetch weights, before anything is built of it.

    Raises
    ------
    ValueError
        A number is beyond any model's, a list is endless, or weights are to be fetched.
    """
    for name, value in _leaves("", values):
        if isinstance(value, int | float) and not abs(value) <= (
            MOST_LAYERS if name.endswith("depth") else MOST
        ):
            raise ValueError(f"{name} = {value} is beyond any model")
        if name.split(".")[-1] == "pretrained" and value:
            raise ValueError(f"{name} = {value} asks to fetch other weights than those beside it")


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping | list):
        if len(value) > MOST_VALUES:
            raise ValueError(f"{name} has {len(value)} values")
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for inner, one in pairs:
            yield from _leaves(f"{name}.{inner}" if name else str(inner), one)
    else:
        yield name, value
