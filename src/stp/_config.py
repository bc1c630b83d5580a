"""Build config dataclasses from plain JSON or TOML values, and check names, types and sizes."""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

# Far beyond any model: a file with larger values is damaged or malicious.
MAX_VALUE = 2**16
MAX_LAYERS = 1000
MAX_LENGTH = 2**16


def from_dict(config_class: type, values: Mapping[str, Any]) -> Any:
    """Return a config dataclass, including nested ones, made from plain values.

    Raises
    ------
    ValueError
        A name is unknown, or a value has another type than the field.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{config_class.__name__} must be names and values, not {values!r}")
    hints = typing.get_type_hints(config_class)
    names = {field.name for field in dataclasses.fields(config_class)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise ValueError(f"{config_class.__name__} has no {unknown}; it has {sorted(hints)}")
    checked = {name: _convert(name, hints[name], value) for name, value in values.items()}
    return config_class(**checked)


def _convert(name: str, hint: Any, value: Any) -> Any:
    """Return a value as the type that the hint names: nested configs and tuples are built."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    config_class = next((kind for kind in kinds if _is_config(kind)), None)
    has_other_kinds = len(set(kinds) - {types.NoneType}) > 1
    if config_class is not None and value is not None:
        if isinstance(value, Mapping) or not has_other_kinds:
            return from_dict(config_class, value)
    plain_kinds = [kind for kind in kinds if not _is_config(kind)]
    if not any(_is_instance(value, kind) for kind in plain_kinds):
        expected = " or ".join(_kind_name(kind) for kind in kinds if kind is not types.NoneType)
        raise ValueError(f"{name} must be {expected}, not {value!r}")
    if isinstance(value, list):
        # Phase of tuple[Phase, ...]
        item_hint = next((item for kind in kinds for item in typing.get_args(kind)), Any)
        return tuple(_convert(name, item_hint, item) for item in value)
    return value


def _is_config(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _kind_name(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return "a list"
    if _is_config(kind) or typing.get_origin(kind) is Mapping:
        return "a table"
    return getattr(kind, "__name__", str(kind))


def _is_instance(value: Any, kind: Any) -> bool:
    """Return whether a plain value fits a type: an int is a float too, a list is a tuple too."""
    kind = typing.get_origin(kind) or kind
    if kind in (int, float) and isinstance(value, bool):
        return False
    accepted: dict[Any, Any] = {Any: object, float: (int, float), tuple: (list, tuple)}
    return isinstance(value, accepted.get(kind, kind))


def require_positive(config: Any, *names: str) -> None:
    """Raise ValueError if one of these fields is zero, negative or NaN."""
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be positive, not {getattr(config, name)}")


def require_not_negative(config: Any, *names: str) -> None:
    """Raise ValueError if one of these fields is negative or NaN."""
    for name in names:
        if not getattr(config, name) >= 0:
            raise ValueError(f"{name} must not be negative, but it is {getattr(config, name)}")


def check_sizes(values: Any) -> None:
    """Raise ValueError if a config has absurd sizes or would download weights.

    The check comes before a model is built. `values` are plain values as in `from_dict`.

    Raises
    ------
    ValueError
        A number or a list is larger than in any model, or weights would be downloaded.
    """
    for name, value in _iterate_leaves("", values):
        if isinstance(value, int | float):
            limit = MAX_LAYERS if name.endswith("depth") else MAX_VALUE
            if not abs(value) <= limit:  # also true for NaN
                raise ValueError(f"{name} = {value} is beyond any model")
        if name.split(".")[-1] == "pretrained" and value:
            raise ValueError(
                f"{name} = {value} would download weights, but the model's own are in its folder"
            )


def _iterate_leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and value of each plain value in nested dictionaries and lists."""
    if not isinstance(value, Mapping | list):
        yield name, value
        return
    if len(value) > MAX_LENGTH:
        raise ValueError(f"{name} has {len(value)} values")
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
    for inner_name, inner_value in pairs:
        full_name = f"{name}.{inner_name}" if name else str(inner_name)
        yield from _iterate_leaves(full_name, inner_value)
