"""JSON values as dataclasses, checked by their annotations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

KINDS = {
    list: "a list",
    dict: "an object",
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
}


class Wrong(Exception):
    """What is wrong, and where in the document."""


def built(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind`: a dataclass by its annotations, a list as a tuple, whole numbers as float where asked for.

    Args:
        kind: a dataclass, or one of list's, dict's and scalars' annotations, perhaps with None; Any is not looked into.
        where: the value's place in the document, for messages.

    Raises:
        Wrong: a key is missing, a value is of another kind, or a number is infinite or none.
    """
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return None if value is None else built(next(arg for arg in args if arg is not NoneType), value, where)
    if origin is tuple:
        return tuple(built(args[0], each, f"{where}[{n}]") for n, each in enumerate(_of(list, value, where)))
    if origin is dict:
        return {key: built(args[1], each, f"{where}.{key}") for key, each in _of(dict, value, where).items()}
    if is_dataclass(kind):
        return _object(kind, _of(dict, value, where), where)
    if type(value) is int and value.bit_length() > 63:
        raise Wrong(f"{where} is a number of too many digits")
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is float and not math.isfinite(value):
        raise Wrong(f"{where} is {value}; a value that is not known is null")
    return _of(kind, value, where)


def _object(kind: Any, value: Mapping[str, Any], where: str) -> Any:
    hints, values = get_type_hints(kind), {}
    for field in fields(kind):
        place = f"{where}.{field.name}".lstrip(".")
        if field.name in value:
            values[field.name] = built(hints[field.name], value[field.name], place)
        elif field.default is MISSING:
            raise Wrong(f"{place} is missing; a value that is not known is null")
    return kind(**values)


def _of(kind: type, value: Any, where: str) -> Any:
    if type(value) is not kind:
        raise Wrong(f"{where or 'the document'} is {repr(value)[:60]}, expected {KINDS[kind]}")
    return value
