"""YAML with places: safe loading, YAML 1.2's numbers, and the line of every key."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from luthier.core.errors import Fault, RecipeError

Path_ = tuple[str | int, ...]

#: What stands for the place of an override.
COMMAND_LINE = "command line"
#: Bounds on what is read at all: bytes of a file, values (aliases followed), nesting.
MAX_BYTES = 4 * 2**20
MAX_NODES = 100_000
MAX_DEPTH = 50


@dataclass(frozen=True)
class Places:
    """Where each path of a recipe stands.

    Attributes:
        name: the file, or a word for what is no file.
        marks: path -> ``recipe.yaml:4:3``, or the command line.
        faults: what reading already found wrong; the rest of the recipe is checked all the same.
    """

    name: str
    marks: Mapping[Path_, str] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    def of(self, path: Path_) -> str:
        """The place of a path or of its nearest known parent."""
        while path:
            if path in self.marks:
                return self.marks[path]
            path = path[:-1]
        return self.name

    def overridden(self, path: Path_) -> Places:
        """The same places with everything at and below ``path`` from the command line."""
        kept = {p: mark for p, mark in self.marks.items() if p[: len(path)] != path}
        above = {path[:n]: COMMAND_LINE for n in range(1, len(path))}
        return replace(self, marks={**above, **kept, path: COMMAND_LINE})


_MERGE, _TEXT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"


def dotted(path: Path_) -> str:
    """A path as it is written on the command line: ``stages.1.training.epochs``."""
    return ".".join(map(str, path)) or "recipe"


def in_order(fault: Fault) -> tuple[int, int]:
    """Sorts faults as a reader meets them: those with a line by line, the others after them."""
    found = re.search(r":(\d+):(\d+)$", fault.place)
    return (int(found[1]), int(found[2])) if found else (sys.maxsize, 0)


class _Loader(yaml.SafeLoader):
    """Safe loading with the numbers of YAML 1.2.

    PyYAML alone reads ``1e-4`` as text, ``1:30`` as ninety, ``017`` as fifteen and ``2024-01-01``
    as a date.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own name and shape
        first: [
            (tag, rule)
            for tag, rule in rules
            if tag.rpartition(":")[2] not in ("int", "float", "timestamp", "value")
        ]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^(?:[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)


def parse(path: Path) -> tuple[dict[str, Any], Places]:
    """A recipe file as plain data, with the place of every key.

    Raises:
        RecipeError: no such file, not YAML, or no mapping at the top.
    """
    name = str(path)
    values, places = _construct(_read(path), name)
    if values is None:
        raise RecipeError(
            "the recipe is empty", name, "begin with `model:` and `data:`", code="empty"
        )
    if not isinstance(values, dict):
        what = "a list" if isinstance(values, list) else "a single value"
        raise RecipeError(
            f"a recipe is a mapping of names to values, this is {what}",
            name,
            "begin with `model: builtin:nano`",
            code="not-a-mapping",
        )
    return values, places


def parse_value(text: str, word: str) -> Any:
    """The right side of ``key=value``, read as YAML.

    Raises:
        RecipeError: not YAML.
    """
    try:
        value, places = _construct(text, COMMAND_LINE)
        if places.faults:
            raise RecipeError.of(places.faults)
        return value
    except RecipeError as error:
        reason = error.faults[0].message
        cure = "quote a value that holds YAML's own signs: key='\"a: b\"'"
        raise RecipeError(f"'{word}': the value is {reason}", COMMAND_LINE, cure, "yaml") from None


def _read(path: Path) -> str:
    name = str(path)
    try:
        if path.is_dir():
            inside = path / "recipe.yaml"
            cure = f"name the file: '{inside}'" if inside.is_file() else "name a recipe file"
            raise RecipeError("is a folder, not a recipe", name, cure, "folder")
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise RecipeError(
            f"no recipe '{path}'",
            cure="`luthier list recipes` shows the ready ones",
            code="no-file",
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RecipeError(f"cannot be read: {reason}", name, code="file") from None
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"is larger than any recipe ({MAX_BYTES:,} bytes)", name, code="size")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise RecipeError(
            "is no text in UTF-8", f"{name}:{line}", "save the file as UTF-8", "encoding"
        ) from None


def _construct(text: str, name: str) -> tuple[Any, Places]:
    """YAML to plain data and the places in it."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, Places(name)
        walk = _Walk(name)
        walk.visit(node, ())
        places = Places(name, walk.marks, tuple(walk.faults))
        return loader.construct_document(node), places
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(error, text, name) from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        sign = f"U+{error.character:04X}" if isinstance(error.character, int) else "one"
        message = f"not YAML: a control character ({sign})"
        raise RecipeError(message, f"{name}:{line}", code="yaml") from None
    except RecursionError:
        raise RecipeError("not YAML: nested deeper than any recipe", name, code="yaml") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        first = "a number too long to read" if "digits" in str(error) else str(error)
        raise RecipeError(f"not YAML: {first}", name, code="yaml") from None


def _not_yaml(error: yaml.MarkedYAMLError, text: str, name: str) -> RecipeError:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return RecipeError(f"not YAML: {_plainly(error)}", name, code="yaml")
    lines = text.splitlines()
    near = lines[mark.line] if mark.line < len(lines) else ""
    cure = 'quote the variable: "${NAME}/file"' if "${" in near else ""
    place = f"{name}:{mark.line + 1}:{mark.column + 1}"
    return RecipeError(f"not YAML: {_plainly(error)}", place, cure, "yaml")


def _plainly(error: yaml.MarkedYAMLError) -> str:
    """PyYAML's reason, in plain words where they are known."""
    problem = str(error.problem or error.context or "it cannot be read")
    if "'\\t'" in problem:
        return "a tab cannot indent YAML, use spaces"
    if "could not determine a constructor for the tag" in problem:
        return "tags such as !!python are not allowed"
    if "expected a single document" in str(error.context or ""):
        return "a recipe is one document, here '---' begins another"
    context = f", {error.context}" if error.context and error.context_mark else ""
    return problem + context


class _Walk:
    """Notes the place of every key, and refuses what no recipe needs before it is built."""

    def __init__(self, name: str) -> None:
        self.name, self.nodes = name, 0
        self.marks: dict[Path_, str] = {}
        self.faults: list[Fault] = []

    def visit(self, node: yaml.Node, path: Path_, depth: int = 0) -> None:
        """Goes through a node and what lies below it, aliases followed."""
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            much = "nested deeper" if depth > MAX_DEPTH else "aliases make it larger"
            raise RecipeError(f"{much} than any recipe", self._place(node), code="size")
        if isinstance(node, yaml.MappingNode):
            self._mapping(node, path, depth)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self.marks.setdefault((*path, index), self._place(value))
                self.visit(value, (*path, index), depth + 1)

    def _mapping(self, node: yaml.MappingNode, path: Path_, depth: int) -> None:
        merged = [value for key, value in node.value if key.tag == _MERGE]
        for value in merged:  # first, so that the mapping's own keys keep their own places
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                self.visit(source, path, depth + 1)
        own: set[str] = set()
        for key, value in node.value:
            if key.tag == _MERGE:
                continue
            place = self._place(key)
            if not isinstance(key, yaml.ScalarNode):
                raise RecipeError("a name must be a plain word", place, code="yaml")
            key.tag, name = _TEXT, str(key.value)  # names, even `on:` and `1:`
            if name in own:
                self.faults.append(
                    Fault(f"{dotted((*path, name))}: stands twice", place, "", "twice")
                )
            own.add(name)
            self.marks[(*path, name)] = place
            self.visit(value, (*path, name), depth + 1)

    def _place(self, node: yaml.Node) -> str:
        if self.name == COMMAND_LINE:
            return self.name
        return f"{self.name}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
