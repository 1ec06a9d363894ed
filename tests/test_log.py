import json
import logging

import pytest
import structlog

from reco import log


@pytest.fixture(autouse=True)
def defaults_afterwards():
    yield
    structlog.reset_defaults()


def test_json_logs_are_one_object_a_line_on_stderr(capsys):
    log.configure(json=True)

    structlog.get_logger().info("campaign started", campaign_id="spring", recipients=7)

    captured = capsys.readouterr()
    line = json.loads(captured.err)
    assert "" == captured.out
    assert ("campaign started", "info", "spring", 7) == (
        line["event"],
        line["level"],
        line["campaign_id"],
        line["recipients"],
    )
    assert line["timestamp"].endswith("Z")


def test_logs_for_people_name_the_event_and_its_facts(capsys):
    log.configure(json=False)

    structlog.get_logger().warning("store is slow", took_s=2.5)

    text = capsys.readouterr().err
    assert "store is slow" in text
    assert "took_s=2.5" in text


def test_what_lies_below_the_level_is_left_out(capsys):
    log.configure(json=True, level=logging.WARNING)

    structlog.get_logger().info("detail")

    assert "" == capsys.readouterr().err


def test_an_exception_is_part_of_its_json_line(capsys):
    log.configure(json=True)
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger().exception("failed")

    assert "ValueError: broken" in json.loads(capsys.readouterr().err)["exception"]


@pytest.mark.parametrize("json", [True, False])
def test_a_traceback_tells_no_local_variable(capsys, json):
    key = "k3y-of-the-shop"
    log.configure(json=json)

    try:
        len(key) / 0
    except ZeroDivisionError as error:
        structlog.get_logger().error("an unknown error", exc_info=error)

    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert key not in said
