"""Grafana dashboard and Prometheus alert rules, made from the names that the application exports.

Takes the bands of configs/alerts/bands.yaml; gives the two files beside it, which Grafana and
Prometheus read as they are.
"""

import json
from pathlib import Path
from typing import Any, Final

import yaml

from reco.outcomes.bands import Bands
from serve.metrics import (
    ASSEMBLED,
    CHUNK_SIZE,
    FALLBACKS,
    OUTCOMES,
    PICKS,
    PUBLIC,
    STAGE_MS,
    WITHHELD,
)

# Ray 2.60 writes its prefix before every name, and `_total` behind every counter.
HTTP_MS: Final = "ray_serve_http_request_latency_ms_bucket"
HTTP_REQUESTS: Final = "ray_serve_num_http_requests_total"
QUEUED: Final = "ray_serve_deployment_queued_queries"
CALLS: Final = "ray_serve_deployment_request_counter_total"
BEHIND: Final = "popular|editorial|random"  # rungs below the model's
HEAD: Final = (
    "# Made by `reco monitoring configs` from configs/alerts/bands.yaml: change the bands there.\n"
    "# Prometheus reads it by `rule_files`; it scrapes Ray by the service discovery file that Ray\n"
    "# writes: /tmp/ray/prom_metrics_service_discovery.json.\n"
)


def write(bands: Bands, directory: Path) -> list[Path]:
    """Write alerts/reco.rules.yml and dashboards/reco.json below `directory`."""
    files = {
        directory / "alerts" / "reco.rules.yml": HEAD
        + yaml.safe_dump(rules(bands), sort_keys=False, width=96),
        directory / "dashboards" / "reco.json": json.dumps(dashboard(bands), indent=1) + "\n",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)


def rules(bands: Bands) -> dict[str, Any]:
    """The alert rules, one a band, as Prometheus reads them."""
    settled = f'sum(increase({_counter(OUTCOMES)}{{state=~"accepted|failed|uncertain"}}[1h]))'
    accepted = f'sum(increase({_counter(OUTCOMES)}{{state="accepted"}}[24h]))'
    picks = f"sum(increase({_counter(PICKS)}[30m]))"
    return {
        "groups": [
            {
                "name": "reco",
                "rules": [
                    _rule("RecoSlowAnswers", f"{_p95(HTTP_MS)} > {bands.latency_p95_ms:g}", "10m",
                          "warning", "HTTP answers are slow: p95 {{ $value | humanize }} ms."),
                    _rule("RecoSlowStage",
                          f"{_p95(_buckets(STAGE_MS, GRAPH), 'stage')} > "
                          f"{bands.latency_p95_ms:g}",
                          "10m", "warning",
                          "Stage {{ $labels.stage }} is slow: p95 {{ $value | humanize }} ms a "
                          "chunk."),
                    _rule("RecoErrors",
                          f'sum(rate({HTTP_REQUESTS}{{status_code=~"5.."}}[5m])) / '
                          f"sum(rate({HTTP_REQUESTS}[5m])) > 0.01",
                          "5m", "critical",
                          "{{ $value | humanizePercentage }} of the answers are errors."),
                    _rule("RecoFallbacks",
                          f'sum(increase({_counter(PICKS)}{{rung=~"{BEHIND}"}}[30m])) / {picks} > '
                          f"{bands.fallback_ceiling:g}",
                          "10m", "warning",
                          "{{ $value | humanizePercentage }} of the picks are not the model's."),
                    _rule("RecoUncertain",
                          f'sum(increase({_counter(OUTCOMES)}{{state="uncertain"}}[1h])) / '
                          f"{settled} > {bands.uncertain_ceiling:g}",
                          "0m", "critical",
                          "Of {{ $value | humanizePercentage }} of the mails nobody knows whether "
                          "they arrived."),
                    _rule("RecoBounces",
                          f'sum(increase({_counter(OUTCOMES)}{{state="failed"}}[1h])) / {settled} '
                          f"> {bands.bounce_ceiling:g}",
                          "5m", "critical",
                          "{{ $value | humanizePercentage }} of the mails are refused for good."),
                    _rule("RecoUnsubscribes",
                          f'sum(increase({_counter(PUBLIC)}{{kind="unsubscribe"}}[24h])) / '
                          f"{accepted} > {bands.unsubscribe_ceiling:g}",
                          "0m", "warning",
                          "{{ $value | humanizePercentage }} of the readers unsubscribe."),
                ],
            }
        ]
    }  # fmt: skip


def dashboard(bands: Bands) -> dict[str, Any]:
    """The dashboard: a campaign from the first chunk to what readers did."""
    mails = _counter(OUTCOMES)
    panels = [
        ("Mails settled a second", [(f"sum by (state) (rate({mails}[1m]))", "{{state}}")], "short"),
        ("Mails settled, by state", [(f"sum by (state) ({mails})", "{{state}}")], "short"),
        ("Mails made a second", [(f"sum(rate({_counter(ASSEMBLED)}[1m]))", "mails")], "short"),
        ("Recipients without a mail",
         [(f"sum by (reason) ({_counter(WITHHELD)})", "{{reason}}")], "short"),
        ("Stages, p95 of a chunk",
         [(_p95(_buckets(STAGE_MS), "stage"), "{{stage}}"),
          (f"vector({bands.latency_p95_ms:g})", "band")], "ms"),
        ("Stages, mean of a mail",
         [(f"sum by (stage) (rate({_name(STAGE_MS)}_sum[5m])) / "
           f"sum by (stage) (rate({_name(CHUNK_SIZE)}_sum[5m]))", "{{stage}}")], "ms"),
        ("HTTP answers, p95",
         [(_p95(HTTP_MS), "p95"), (f"vector({bands.latency_p95_ms:g})", "band")], "ms"),
        ("HTTP requests a second",
         [(f"sum by (status_code) (rate({HTTP_REQUESTS}[1m]))", "{{status_code}}")], "reqps"),
        ("Picks, by rung of the fallback ladder",
         [(f"sum by (rung) (increase({_counter(PICKS)}[5m]))", "{{rung}}")], "short"),
        ("Recipients whose stage fell back",
         [(f"sum by (reason) (increase({_counter(FALLBACKS)}[5m]))", "{{reason}}")], "short"),
        ("Clicks, opens, unsubscriptions",
         [(f"sum by (kind) (increase({_counter(PUBLIC)}[5m]))", "{{kind}}")], "short"),
        ("Waiting for a deployment",
         [(f"sum by (deployment) ({QUEUED})", "{{deployment}}")], "short"),
        ("Calls of a deployment",
         [(f"sum by (deployment) (rate({CALLS}[1m]))", "{{deployment}}")], "reqps"),
    ]  # fmt: skip
    return {
        "uid": "reco",
        "title": "reco",
        "tags": ["reco", "ray"],
        "timezone": "utc",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]
        },
        "panels": [_panel(i, *panel) for i, panel in enumerate(panels)],
    }


GRAPH: Final = (
    'stage=~"features|scorer|rules|renderer"'  # the relay's and the ledger's are not ours
)


def _name(metric: str) -> str:
    return f"ray_{metric}"


def _counter(metric: str) -> str:
    return f"ray_{metric}_total"


def _buckets(metric: str, where: str = "") -> str:
    return f"ray_{metric}_bucket" + (f"{{{where}}}" if where else "")


def _p95(buckets: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile(0.95, sum by ({labels}) (rate({buckets}[5m])))"


def _rule(name: str, expr: str, lasts: str, severity: str, summary: str) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expr,
        "for": lasts,
        "labels": {"severity": severity},
        "annotations": {"summary": summary},
    }


def _panel(i: int, title: str, queries: list[tuple[str, str]], unit: str) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": i + 1,
        "title": title,
        "type": "timeseries",
        "datasource": source,
        "gridPos": {"x": 12 * (i % 2), "y": 8 * (i // 2), "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(65 + j), "datasource": source, "expr": expr, "legendFormat": legend}
            for j, (expr, legend) in enumerate(queries)
        ],
    }
