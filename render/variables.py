"""Unknown variables are found before anything is rendered, in every branch of a template.

The shapes of the known names (fields of the views, keys of meta.yaml) are followed through loops,
`set` and a few filters; what cannot be followed is left to the trial render.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from jinja2 import meta, nodes

from reco.errors import TemplateError
from render.sandbox import MailEnvironment
from render.sources import Written
from render.views import MADE, OPTIONAL, REQUIRED, VIEW_FIELDS, Interest, ItemView, RecipientView


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of a value: its fields, or what its elements are like."""

    fields: Mapping[str, "Shape | None"] | None = None
    each: "Shape | None" = None


Scope = Mapping[str, Shape | None]
_DEFAULT: Final = frozenset({"default", "d"})
_SAME: Final = frozenset({"list", "sort", "reverse", "unique"}) | _DEFAULT
_CARED_FOR: Final = (nodes.If, nodes.CondExpr, nodes.Or, nodes.And, nodes.Assign, nodes.Macro)


def shape_of(value: object) -> Shape | None:
    """Shape of a value of meta.yaml."""
    if isinstance(value, Mapping):
        return Shape({str(key): shape_of(inner) for key, inner in value.items()})
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return Shape(each=shape_of(value[0]))
    return None


def known_names(defaults: Mapping[str, object]) -> dict[str, Shape | None]:
    """All names that a template may use, with their shapes."""
    view = {kind: Shape(dict.fromkeys(names)) for kind, names in VIEW_FIELDS.items()}
    names: dict[str, Shape | None] = dict.fromkeys((*REQUIRED, *OPTIONAL, *MADE))
    names |= {name: shape_of(value) for name, value in defaults.items()}
    names |= {
        "user": view[RecipientView],
        "recommendations": Shape(each=view[ItemView]),
        "popular": Shape(each=view[ItemView]),
        "interests": Shape(each=view[Interest]),
    }
    return names


def check(env: MailEnvironment, written: Written, known: Scope) -> None:
    """Raises one TemplateError that names every unknown variable with its file and line."""
    tree = env.parse(written.text)
    free = meta.find_undeclared_variables(tree) - known.keys() - env.globals.keys()
    problems = [_unknown_name(name, written, known) for name in _named(tree, free)]
    problems += [
        f"{written.place(line)}: {text}" for line, text in _walk(tree, {**known, "loop": None})
    ]
    if problems:
        raise TemplateError(
            "\n  ".join(dict.fromkeys(problems)),
            "no recipient would have a value for it",
            "correct the name, or declare it under `variables:` in meta.yaml",
        )


def segments(env: MailEnvironment, written: Written) -> tuple[str, ...]:
    """Constants that `user.segment` is compared with: each stands for a branch to try."""
    found: dict[str, None] = {}
    for compare in env.parse(written.text).find_all(nodes.Compare):
        if isinstance(compare.expr, nodes.Getattr) and compare.expr.attr == "segment":
            constants = (c for op in compare.ops for c in op.find_all(nodes.Const))
            found |= {c.value: None for c in constants if isinstance(c.value, str)}
    return tuple(found)


def printed(env: MailEnvironment, written: Written) -> frozenset[str]:
    """Fields of `user` that every mail prints as they are: nothing is said for an empty one.

    What stands behind an `if`, an `or` or a default is the author's care, and not among them.
    """
    return frozenset(_always_printed(env.parse(written.text)))


def _always_printed(node: nodes.Node) -> Iterator[str]:
    if isinstance(node, _CARED_FOR) or (isinstance(node, nodes.Filter) and node.name in _DEFAULT):
        return
    if isinstance(node, nodes.Getattr) and _path(node) == f"user.{node.attr}":
        yield node.attr
    for child in node.iter_child_nodes():
        yield from _always_printed(child)


def _named(tree: nodes.Template, free: set[str]) -> list[nodes.Name]:
    return [name for name in tree.find_all(nodes.Name) if name.name in free]


def _unknown_name(name: nodes.Name, written: Written, known: Scope) -> str:
    return f"{written.place(name.lineno)}: unknown variable '{name.name}'{_hint(name.name, known)}"


def _hint(name: str, known: Mapping[str, object]) -> str:
    close = get_close_matches(name, known, 1)
    return f" (did you mean '{close[0]}'?)" if close else f" (known: {', '.join(sorted(known))})"


def _walk(node: nodes.Node, scope: dict[str, Shape | None]) -> Iterator[tuple[int, str]]:
    """Unknown attributes below a node; names that it binds are added to `scope`."""
    if isinstance(node, nodes.Getattr):
        shape = _shape(node.node, scope)
        if shape and shape.fields is not None and node.attr not in shape.fields:
            yield node.lineno, f"unknown variable '{_path(node)}'{_hint(node.attr, shape.fields)}"
    if isinstance(node, nodes.Assign) and isinstance(node.target, nodes.Name):
        scope[node.target.name] = _shape(node.node, scope)
    if isinstance(node, nodes.For):
        yield from _walk(node.iter, scope)
        inner = dict(scope)
        shape = _shape(node.iter, scope)
        names = [node.target, *node.target.find_all(nodes.Name)]
        inner |= {name.name: None for name in names if isinstance(name, nodes.Name)}
        if isinstance(node.target, nodes.Name):
            inner[node.target.name] = shape.each if shape else None
        for child in (*node.body, *node.else_, *([node.test] if node.test else [])):
            yield from _walk(child, inner)
        return
    if isinstance(node, nodes.Macro):
        scope = {**scope, **{arg.name: None for arg in node.args}}
    for child in node.iter_child_nodes():
        yield from _walk(child, scope)


def _shape(node: nodes.Node, scope: Scope) -> Shape | None:
    if isinstance(node, nodes.Name):
        return scope.get(node.name)
    if isinstance(node, nodes.Getattr):
        outer = _shape(node.node, scope)
        return outer.fields.get(node.attr) if outer and outer.fields else None
    if isinstance(node, nodes.Getitem):
        outer = _shape(node.node, scope)
        if outer is None or isinstance(node.arg, nodes.Slice):
            return outer
        return outer.each
    if isinstance(node, nodes.Filter) and node.node is not None:
        outer = _shape(node.node, scope)
        if node.name in ("first", "last"):
            return outer.each if outer else None
        return outer if node.name in _SAME else None
    return None


def _path(node: nodes.Getattr) -> str:
    inner = node.node
    if isinstance(inner, nodes.Getattr):
        return f"{_path(inner)}.{node.attr}"
    return f"{inner.name if isinstance(inner, nodes.Name) else '…'}.{node.attr}"
