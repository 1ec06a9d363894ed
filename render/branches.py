"""Branches of a template that nobody can ever get."""

from collections.abc import Collection, Iterator

from jinja2 import nodes

from render.sandbox import MailEnvironment
from render.sources import Written


def unreachable(
    env: MailEnvironment, written: Written, segments: Collection[str] | None = None
) -> Iterator[str]:
    """A sentence on each: asked twice, decided in advance, or for a segment that does not exist.

    `segments` are those of the campaign; None where it is not known.
    """
    tree = env.parse(written.text)
    chained = {id(branch) for branch in tree.find_all(nodes.If) for branch in branch.elif_}
    for first in tree.find_all(nodes.If):
        if id(first) not in chained:
            yield from _of_chain([first, *first.elif_], written)
    if segments is not None:
        yield from _of_segments(tree, written, segments)


def _of_chain(chain: list[nodes.If], written: Written) -> Iterator[str]:
    asked: dict[str, int] = {}
    for branch in chain:
        place, question = written.place(branch.lineno), repr(branch.test)
        if question in asked:
            yield f"{place}: this branch is never taken: an earlier one asks the same"
        asked[question] = branch.lineno
        if isinstance(branch.test, nodes.Const):
            always = bool(branch.test.value)
            yield f"{place}: this condition is always {'true' if always else 'false'}"


def _of_segments(
    tree: nodes.Template, written: Written, segments: Collection[str]
) -> Iterator[str]:
    for compare in tree.find_all(nodes.Compare):
        if not (isinstance(compare.expr, nodes.Getattr) and compare.expr.attr == "segment"):
            continue
        for constant in (c for op in compare.ops for c in op.find_all(nodes.Const)):
            if isinstance(constant.value, str) and constant.value not in segments:
                yield (
                    f"{written.place(compare.lineno)}: nobody is in a segment {constant.value!r}; "
                    f"the campaign has {', '.join(sorted(segments)) or 'none'}"
                )
