"""Every option of the configuration, read off its models, for the tests that compare files with them."""

import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway.config import Config

ROOT = Path(__file__).parents[1]
EXAMPLE_MARK = "#| "


def options() -> dict[str, FieldInfo]:
    """Give each option by its path; `*` stands for a name that the administrator chooses."""
    return dict(_options(Config, ""))


def _options(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        nested = list(_models(field.annotation, ""))
        if not nested or field.default is None:
            yield f"{prefix}{name}", field
        for inner, step in nested:
            yield from _options(inner, f"{prefix}{name}.{step}")


def _models(annotation: Any, step: str) -> Iterator[tuple[type[BaseModel], str]]:
    origin, inner = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, step
    elif origin is Annotated:
        yield from _models(inner[0], step)
    elif origin in (Union, types.UnionType):
        for member in inner:
            yield from _models(member, step)
    elif origin is dict:
        yield from _models(inner[1], "*.")


def stated(document: Any, known: Mapping[str, FieldInfo], path: str = "") -> Iterator[tuple[str, Any]]:
    """Give the path and value of each option that a YAML document states."""
    if path in known:
        yield path, document
    if not isinstance(document, dict):
        return
    for key, value in document.items():
        starred = f"{path}.*".lstrip(".")
        named = f"{path}.{key}".lstrip(".")
        inside = any(option.startswith(f"{starred}.") for option in known)
        yield from stated(value, known, starred if inside else named)


def default(field: FieldInfo) -> Any:
    """Give an option's default as YAML would state it; raises KeyError when it has none."""
    if field.default is PydanticUndefined:
        raise KeyError
    value = field.default
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, frozenset):
        return sorted(value)
    return str(value) if isinstance(value, Path) else value


def shipped() -> Any:
    """Read config.yaml as it is."""
    return yaml.safe_load((ROOT / "config.yaml").read_text())


def examples() -> Any:
    """Read the examples in config.yaml: its lines that begin with the example mark."""
    lines = (ROOT / "config.yaml").read_text().splitlines()
    return yaml.safe_load(
        "\n".join(line.removeprefix(EXAMPLE_MARK) for line in lines if line.startswith(EXAMPLE_MARK))
    )
