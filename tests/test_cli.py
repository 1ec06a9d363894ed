"""The command line on bad input: one clear error, a non-zero exit, nothing half written."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from reco.cli import main
from reco.events.lake import Lake
from tests.conftest import ROOT, open_folder

EVENTS = "user_id,type,timestamp,item_id,value\nann,purchase,2026-01-02T10:00:00Z,tea,4.20\n"


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder / "home"


def reco(home: Path, *arguments: str, **addresses: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"RECO_HOME": str(home)} | addresses
    return subprocess.run(
        [sys.executable, "-m", "reco", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def assert_one_clear_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1
    for word in words:
        assert word in done.stderr


def written(home: Path) -> tuple[int, int]:
    lake = Lake(str(home / "lake"))
    return lake.events().collect().height, lake.items().height


@pytest.fixture
def csv(tmp_path):
    def write(text: str, name: str = "rows.csv") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_every_command_is_in_the_readme_and_has_help():
    readme = (ROOT / "README.md").read_text()
    for name, command in main.commands.items():
        assert command.help or command.callback.__doc__
        assert f"reco {name}" in readme or f"`make {name}`" in readme, name


def test_evaluate_says_that_it_judges_a_new_fit_and_not_the_champion():
    text = " ".join(CliRunner().invoke(main, ["evaluate", "--help"]).output.split())

    assert "Fit the settings before the last horizon" in text
    assert "A champion that has learned from the horizon is left out" in text


def test_only_check_holds_a_campaign_to_its_limits_and_the_help_says_so():
    check, send = (
        CliRunner().invoke(main, ["campaign", name, "--help"]).output for name in ("check", "send")
    )

    assert "fails beyond the campaign's limits" in " ".join(check.split())
    assert "Its limits are not checked here" in " ".join(send.split())


def test_help_is_there_for_every_command():
    for name in main.commands:
        assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0


def test_a_file_is_imported_once_however_often(home, csv):
    first = reco(home, "import", "events", csv(EVENTS), "--json")
    again = reco(home, "import", "events", csv(EVENTS), "--json")

    assert json.loads(first.stdout)["new"] == 1
    assert (json.loads(again.stdout)["new"], json.loads(again.stdout)["duplicates"]) == (0, 1)


def test_a_missing_column_is_named_with_those_that_are_there(home, csv):
    before = written(home)

    done = reco(home, "import", "events", csv("customer,type,timestamp\nann,click,2026-01-01\n"))

    assert_one_clear_error(done, "user_id", "customer", "rename")
    assert written(home) == before


def test_rows_of_a_wrong_type_stop_the_import_when_they_are_most(home, csv):
    before = written(home)
    rows = "".join(f"ann,purchase,yesterday,tea,{i}\n" for i in range(9))

    done = reco(home, "import", "events", csv("user_id,type,timestamp,item_id,value\n" + rows))

    assert_one_clear_error(done, "timestamp")
    assert written(home) == before


def test_a_negative_price_is_quarantined_with_its_reason(home, csv):
    rows = "item_id,price\nmilk,1.20\nbread,2\neggs,3\nsalt,-1\n"

    done = reco(home, "import", "items", csv(rows, "items.csv"), "--json")

    summary = json.loads(done.stdout)
    assert (summary["new"], summary["quarantined"]) == (3, 1)
    kept = pl.read_parquet(summary["quarantine_file"])
    assert kept["item_id"].to_list() == ["salt"]
    assert "price" in kept["reason"][0]


def test_a_mapping_with_a_wrong_key_is_refused_by_name(home, csv):
    mapping = csv("table: events\nrenmae: {a: b}\n", "mapping.yaml")

    done = reco(home, "import", "events", csv(EVENTS), "--mapping", mapping)

    assert_one_clear_error(done, "renmae", "mapping.yaml")


def test_an_unknown_template_variable_is_found_before_anything_starts(home, tmp_path, csv):
    stock = ROOT / "render" / "templates" / "digest"
    template = tmp_path / "mine"
    for file in (f for f in stock.rglob("*") if f.is_file()):
        target = template / file.relative_to(stock)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(file.read_text().replace("user.first_name", "user.frist_name"))
    campaign = (ROOT / "configs/campaigns/digest.yaml").read_text()
    campaign = campaign.replace("template: digest", f"template: {template}")

    done = reco(home, "campaign", "send", csv(campaign, "mine.yaml"))

    assert_one_clear_error(done, "frist_name", "first_name")
    assert not (home / "outbox" / "new").is_dir() or not list((home / "outbox" / "new").iterdir())


def test_a_campaign_with_mistakes_is_refused_with_all_of_them(home, csv):
    campaign = "id: x\ntemplate: digest\npicks: many\narms: []\ncolour: red\n"

    done = reco(home, "campaign", "send", csv(campaign, "bad.yaml"))

    assert_one_clear_error(done, "picks", "colour", "from_email")


@pytest.mark.parametrize(
    ("name", "url", "server"),
    [
        ("RECO_REDIS_URL", "redis://127.0.0.1:1/0", "Redis"),
        ("RECO_SMTP_URL", "smtp://127.0.0.1:1", "SMTP"),
        ("RECO_DATABASE_URL", "postgresql://reco@127.0.0.1:1/reco", "PostgreSQL"),
    ],
)
def test_a_server_that_does_not_answer_is_one_error(home, csv, name, url, server):
    before = written(home)

    done = reco(home, "import", "events", csv(EVENTS.replace("ann", "bob")), **{name: url})

    assert_one_clear_error(done, server, "127.0.0.1:1", name)
    assert written(home) == before


def test_an_unknown_campaign_is_not_found(home):
    assert_one_clear_error(reco(home, "report", "nothing"), "nothing")


def test_errors_are_json_for_programs(home, csv):
    done = reco(home, "report", "nothing", "--json")

    assert done.returncode == 1
    assert json.loads(done.stdout)["error"] == "NotFound"


@pytest.mark.parametrize("time", ["soon", "0001-01-01T00:00:00+14:00"])
def test_a_time_that_cannot_be_is_a_usage_error(time: str) -> None:
    done = CliRunner().invoke(main, ["features", "--as-of", time])

    assert done.exit_code == 2
    assert "is not a time" in done.output
