"""Strict YAML: a file and a pydantic model give a value, or one error that lists every mistake.

Each mistake names its line and key; a misspelt key comes with the nearest known one.
"""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from reco.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[str | int, ...]
LOOK: Final = "Correct the file; configs/ holds an example of each kind with every key explained."


def read_config(path: Path, model: type[Model]) -> Model:
    """The model that a YAML file describes.

    Raises ConfigError with all mistakes at once: file, line, key and what is expected.
    """
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read.", str(error), "Check the path.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML.", str(error), LOOK) from error
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path} holds no settings.", "Expected `key: value` lines.", LOOK)
    lines: dict[Location, int] = {}
    mistakes = [
        f"line {line}, {_dotted(at)}: stands twice"
        for at, line, again in _places(root)
        if lines.setdefault(at, line) and again
    ]
    try:
        value = model.model_validate(data, context={"folder": path.parent})
    except ValidationError as error:
        mistakes += [_sentence(e, lines, model) for e in error.errors(include_url=False)]
    if mistakes:
        raise ConfigError(f"{path} has {_count(mistakes)}.", "\n       ".join(mistakes), LOOK)
    return value


def _places(node: yaml.Node, at: Location = ()) -> Iterator[tuple[Location, int, bool]]:
    """Every key with its line, and whether it stands there for the second time."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            yield (*at, key.value), key.start_mark.line + 1, key.value in seen
            seen.add(key.value)
            yield from _places(value, (*at, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield (*at, i), value.start_mark.line + 1, False
            yield from _places(value, (*at, i))


def _sentence(error: ErrorDetails, lines: Mapping[Location, int], model: type[BaseModel]) -> str:
    at = tuple(error["loc"])
    known = next((at[:n] for n in range(len(at), 0, -1) if at[:n] in lines), ())
    where = f"line {lines[known]}, " if known else ""
    if error["type"] == "missing":
        return f"{where}{_dotted(at)}: is required"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(at[-1]), _names(model), 1)
        return f"{where}{_dotted(at)}: unknown key" + (f"; did you mean {near[0]}?" if near else "")
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    given = error["input"]
    shown = f" (is {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"{where}{_dotted(known or at)}: {message}{shown}"


def _names(model: type[BaseModel]) -> list[str]:
    """Every key of the model and of the models in it."""
    schema = model.model_json_schema(mode="validation")
    parts = [schema, *schema.get("$defs", {}).values()]
    return sorted({name for part in parts for name in part.get("properties", {})})


def _dotted(at: Location) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in at).lstrip(".") or "file"


def _count(mistakes: list[str]) -> str:
    return "one mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
