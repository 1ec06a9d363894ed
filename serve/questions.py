"""Questions for recommendations: asked one by one, gathered at the door, answered by the chunk.

Takes a group of questions, gives for each where its users are in a Recommended.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from reco.errors import RecoError
from serve.chunks import Choice, Mode, Recommended, Request
from serve.graph import Graph

MOST_USERS = 512  # of a question, and of a chunk


@dataclass(frozen=True, slots=True)
class Question:
    """What to recommend to whom."""

    choice: Choice
    users: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """A chunk in which the question's users begin at place `first`."""

    chunk: Recommended
    first: int


def by_choice(questions: Sequence[Question]) -> list[list[int]]:
    """Places of the questions that may share a chunk."""
    groups: dict[Choice, list[int]] = defaultdict(list)
    for i, question in enumerate(questions):
        groups[question.choice].append(i)
    return list(groups.values())


async def answered(graph: Graph, questions: Sequence[Question]) -> list[Answer] | list[RecoError]:
    """Ask the graph once for questions of one choice; an error is the answer of each."""
    users = [user for question in questions for user in question.users]
    request = Request(questions[0].choice, users, [""] * len(users), Mode.RECOMMEND)
    try:
        chunk = await graph.recommend(request)
    except RecoError as error:
        return [error] * len(questions)
    answers, first = [], 0
    for question in questions:
        answers.append(Answer(chunk, first))
        first += len(question.users)
    return answers
