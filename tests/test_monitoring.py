"""Dashboard and alert rules hold what the bands say, about metrics that a real app exposes."""

import json
import re
import shutil
import subprocess
import time
import urllib.request

import pytest
import yaml

from reco.outcomes.bands import Bands, read_bands
from serve.monitoring import dashboard, rules, write
from tests.conftest import ROOT
from tests.serving import running_app
from tests.small_world import TRACKED, campaign, small_world

CONFIGS = ROOT / "configs"
PROMTOOL = shutil.which("promtool")
NAME = re.compile(r"ray_[a-z_]+")


def named():
    """Every metric that the dashboard or a rule asks for."""
    queries = [rule["expr"] for rule in rules(Bands())["groups"][0]["rules"]]
    queries += [t["expr"] for panel in dashboard(Bands())["panels"] for t in panel["targets"]]
    return {name for query in queries for name in NAME.findall(query)}


def test_the_committed_files_are_what_the_bands_make(tmp_path):
    made = write(read_bands(CONFIGS / "alerts" / "bands.yaml"), tmp_path)

    assert [path.read_text() for path in made] == [
        (CONFIGS / path.relative_to(tmp_path)).read_text() for path in made
    ]


def test_the_bands_of_the_file_are_the_defaults():
    assert Bands() == read_bands(CONFIGS / "alerts" / "bands.yaml")


def test_a_band_moves_its_rule():
    text = json.dumps(rules(Bands(latency_p95_ms=123, unsubscribe_ceiling=0.0456)))

    assert "> 123" in text
    assert "> 0.0456" in text


@pytest.mark.ray
@pytest.mark.slow
def test_every_metric_that_is_asked_for_is_exposed_by_a_running_app(ray_cluster, services):
    import ray

    with small_world(services), running_app(services) as client:
        spec = campaign("metered", picks=3).model_dump(mode="json")
        for user in ("u05", "u01", TRACKED):
            client.post("/v1/send", json={"campaign": spec, "user_id": user})
        html = client.post("/v1/preview", json={"campaign": spec, "user_id": TRACKED}).json()[
            "html"
        ]
        client.get(re.findall(r"(/c/[\w-]+)", html)[0])
        port = ray.nodes()[0]["MetricsExportPort"]
        until, missing = time.monotonic() + 60, named()
        while missing and time.monotonic() < until:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                missing = named() - set(NAME.findall(answer.read().decode()))
            time.sleep(1)

    assert set() == missing


@pytest.mark.skipif(not PROMTOOL, reason="Debian's prometheus is not installed")
def test_prometheus_reads_the_rules_and_they_fire_when_a_band_is_left(tmp_path):
    """A series for each rule that leaves its band, and one campaign for which none fires."""
    file = CONFIGS / "alerts" / "reco.rules.yml"
    subprocess.run([str(PROMTOOL), "check", "rules", str(file)], check=True, capture_output=True)
    plan = {
        "rule_files": [str(file)],
        "evaluation_interval": "1m",
        "tests": [_case(BAD, list(EXPECTED)), _case(GOOD, [])],
    }
    (tmp_path / "plan.yml").write_text(yaml.safe_dump(plan, sort_keys=False))

    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", str(tmp_path / "plan.yml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stdout + done.stderr


def _case(series, firing):
    names = [rule["alert"] for rule in rules(Bands())["groups"][0]["rules"]]
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "59m",
                "exp_samples": [
                    {"labels": f'{{alertname="{name}"}}', "value": 1}
                    for name in names
                    if name in firing
                ],
            }
        ],
    }


EXPECTED = {
    "RecoSlowAnswers", "RecoSlowStage", "RecoErrors", "RecoFallbacks", "RecoUncertain",
    "RecoBounces", "RecoUnsubscribes",
}  # fmt: skip


def _series(slow, bad):
    """Counters that rise by so many a minute; `bad` is the share of what should be rare."""
    out = {}
    for name, labels in (
        ("ray_serve_http_request_latency_ms_bucket", ""),
        ("ray_reco_stage_latency_ms_bucket", 'stage="scorer",'),
    ):
        out[f'{name}{{{labels}le="100"}}'] = f"0+{0 if slow else 100}x60"
        out[f'{name}{{{labels}le="500"}}'] = "0+100x60"
        out[f'{name}{{{labels}le="+Inf"}}'] = "0+100x60"
    for name, label, common, rare in (
        ("ray_serve_num_http_requests_total", "status_code", "200", "500"),
        ("ray_reco_picks_total", "rung", "live", "popular"),
    ):
        out[f'{name}{{{label}="{common}"}}'] = "0+100x60"
        out[f'{name}{{{label}="{rare}"}}'] = f"0+{200 if bad else 0}x60"
    for state in ("uncertain", "failed"):
        out[f'ray_reco_mails_settled_total{{state="{state}"}}'] = f"0+{20 if bad else 0}x60"
    out['ray_reco_mails_settled_total{state="accepted"}'] = "0+100x60"
    out['ray_reco_public_requests_total{kind="unsubscribe"}'] = f"0+{9 if bad else 0}x60"
    return out


BAD, GOOD = _series(slow=True, bad=True), _series(slow=False, bad=False)
