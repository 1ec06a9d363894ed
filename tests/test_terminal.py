"""What a command shows to people and to programs."""

import json
from dataclasses import dataclass

from reco.errors import InputError
from reco.terminal import Terminal


@dataclass(frozen=True)
class Summary:
    rows: int
    note: str
    table: dict[str, dict[str, float]]
    difference: tuple[float, float, float]


SUMMARY = Summary(1_471_409, "[not markup]", {"model": {"ndcg": 0.38}}, (0.02, 0.01, 0.03))


def test_a_summary_is_a_table_for_people(capsys):
    Terminal(False).summary("Imported", SUMMARY)

    shown = capsys.readouterr().out
    assert "1,471,409" in shown
    assert "[not markup]" in shown
    assert "0.02 [0.01, 0.03]" in shown
    assert shown.splitlines()[-1].split() == ["model", "0.38"]


def test_a_summary_is_one_json_object_for_programs(capsys):
    Terminal(True).summary("Imported", SUMMARY)

    assert json.loads(capsys.readouterr().out)["rows"] == 1_471_409


def test_progress_is_silent_where_nobody_watches(capsys):
    with Terminal(False).progress() as report:
        report("import", 1, 2)
        report("import", 2, 2)
        report("unknown total", 1, 0)

    assert capsys.readouterr().out == ""


def test_a_failure_says_what_why_and_what_to_do(capsys):
    error = InputError("No [column] user_id.", "The file has others.", "Give a mapping.")

    Terminal(False).fail(error)
    people = capsys.readouterr().err
    Terminal(True).fail(error)
    program = json.loads(capsys.readouterr().out)

    assert all(part in people for part in ("No [column] user_id.", "others.", "Give a mapping."))
    assert program == {
        "error": "InputError",
        "what": "No [column] user_id.",
        "why": "The file has others.",
        "what_to_do": "Give a mapping.",
    }
