"""docs/BENCHMARKS.md and its plot, from the results that tests/bench/run.py keeps beside them.

    python tests/bench/document.py

Only what was measured stands in it: a bar whose part has not run yet says so.
"""

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
KEPT: Final = DOCS / "benchmarks"
PLOT: Final = "benchmarks.svg"
NOT_YET: Final = "not measured yet"
HEAD: Final = """# Benchmarks

Written by `make bench`; every figure was measured, and `make bench ARGS="http online"` measures a
part of them again. Peers run beside us, in the same run, on the same machine; so do the load
generator, the stores and postfix's smtp-sink. What each part printed stands below, as it was.
"""
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the first table: what is promised, and how the figure is read."""

    what: str
    bar: str
    figure: Callable[[Figures], str]


@dataclass(frozen=True, slots=True)
class Part:
    """A benchmark and the bars that it answers."""

    name: str
    bars: tuple[Bar, ...] = ()


def _times(name: str, peer: str) -> Callable[[Figures], str]:
    return lambda f: f"{f[name]['per_s'] / f[peer]:.1f} times {f[peer]:,.0f}/s"


def _stock(name: str, whose: str) -> Callable[[Figures], str]:
    return lambda f: f"{f[name]['per_s'] / f[whose]:.2f} of {f[whose]:,.0f}/s"


def _grown(found: Figures) -> str:
    return f"{found['growth']['times']:.1f} times" if "growth" in found else NOT_YET


def _rate(name: str) -> Callable[[Figures], str]:
    return lambda f: f"{f[name]['per_s']:,.0f}/s"


def _http(name: str) -> Callable[[Figures], str]:
    return lambda f: f"{f[name]['per_s']:,.0f}/s, p95 {f[name]['p95_ms']:.0f} ms"


def _both(nodes: dict[str, int]) -> str:
    return " and ".join(f"{mails:,}" for mails in nodes.values())


PARTS: Final = (
    Part(
        "campaign",
        (
            Bar("mails, from precomputed slates", "1,500/s", _rate("precomputed")),
            Bar("mails, each recipient scored live", "1,000/s", _rate("live")),
            Bar("a plain asyncio script, precomputed", "4 times", _times("precomputed", "plain")),
            Bar("a plain asyncio script, live", "4 times", _times("live", "plain")),
            Bar(
                "stock aiosmtplib, the same bytes prebuilt, precomputed",
                "1.0",
                _stock("precomputed", "stock_ours"),
            ),
            Bar("the same, live", "1.0", _stock("live", "stock_ours")),
            Bar(
                "stock aiosmtplib, the script's smaller mails, precomputed",
                "",
                _stock("precomputed", "stock"),
            ),
            Bar("the same, live", "", _stock("live", "stock")),
            Bar("time of 10 times as many recipients", "11 times", _grown),
        ),
    ),
    Part(
        "http",
        (
            Bar("`POST /v1/send`, 64 connections, live", "500/s, p95 100 ms", _http("send")),
            Bar("the same, precomputed", "500/s, p95 100 ms", _http("send_precomputed")),
            Bar("`POST /v1/recommend`, 64 connections", "", _http("recommend")),
        ),
    ),
    Part(
        "faults",
        (
            Bar(
                "single sends while the scorer or Redis is dead or hangs",
                "p95 within budgets + 100 ms",
                lambda f: ", ".join(
                    f"{name} {one['p95_ms']:.0f} ms ({one['allowed_ms']:.0f})"
                    for name, one in f.items()
                ),
            ),
        ),
    ),
    Part(
        "online",
        (
            Bar(
                "features of a subscriber, 256 at once",
                "5 µs",
                lambda f: f"{f['packed']['us']:.1f} µs; Feast's layout {f['feast']['us']:.0f} µs",
            ),
        ),
    ),
    Part(
        "nodes",
        (Bar("mails from each of two nodes", "both", lambda f: _both(f["nodes"])),),
    ),
    Part("profile"),
    Part("features"),
    Part("score"),
    Part("render"),
    Part("mail"),
    Part("ledger"),
    Part("smtp"),
)


def kept() -> dict[str, Figures]:
    """Results by part, in the order of the document."""
    found = {file.stem: json.loads(file.read_text()) for file in sorted(KEPT.glob("*.json"))}
    order = [part.name for part in PARTS]
    return {
        name: found[name] for name in [*order, *sorted(found.keys() - {*order})] if name in found
    }


def write() -> None:
    """The document and, where there are rates, the plot."""
    results = kept()
    sections = [HEAD, *_machines(results), _bars(results)]
    if rates := _rates(results):
        _plot(rates)
        sections.append(f"![Mails a second]({PLOT})\n")
    if "profile" in results:
        sections.append(_budget(results["profile"]["figures"]))
    sections += [_section(name, one) for name, one in results.items()]
    (DOCS / "BENCHMARKS.md").write_text("\n".join(sections))


def _machines(results: dict[str, Figures]) -> list[str]:
    """One line for each machine and set of versions that parts were measured on."""
    lines: dict[str, list[str]] = {}
    for name, one in results.items():
        m = one["machine"]
        made_with = ", ".join(f"{package} {number}" for package, number in one["versions"].items())
        line = f"{m['cpus']} CPUs ({m['cpu']}), {m['memory_gb']} GB, {m['system']}; {made_with}."
        lines.setdefault(line, []).append(name)
    if len(lines) == 1:
        return [f"{line}\n" for line in lines]
    return [f"{', '.join(names)}: {line}\n" for line, names in lines.items()]


def _bars(results: dict[str, Figures]) -> str:
    rows = ["| what | asked for | measured | command |", "|---|---|---|---|"]
    for part in PARTS:
        for bar in part.bars:
            one = results.get(part.name)
            figure = bar.figure(one["figures"]) if one else NOT_YET
            rows.append(f"| {bar.what} | {bar.bar} | {figure} | `make bench ARGS={part.name}` |")
    return "\n".join(rows) + "\n"


def _rates(results: dict[str, Figures]) -> dict[str, float]:
    """Mails a second of ours and of the peers."""
    if "campaign" not in results:
        return {}
    f = results["campaign"]["figures"]
    return {
        "plain asyncio script": f["plain"],
        "aiosmtplib, the same mails prebuilt": f["stock_ours"],
        "reco, scored live": f["live"]["per_s"],
        "reco, precomputed": f["precomputed"]["per_s"],
    }


def _plot(rates: dict[str, float]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "reco"  # the same figures give the same file
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 2.2), layout="constrained")
    colors = ["#4a7" if name.startswith("reco") else "#bbb" for name in rates]
    bars = axes.barh([*rates], [*rates.values()], color=colors)
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates.values()], padding=3)
    axes.margins(x=0.12)
    axes.set_xlabel("mails a second, smtp-sink on the same cores")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(DOCS / PLOT, metadata={"Date": None})
    plt.close(figure)


def _budget(stages: Figures) -> str:
    """Where the microseconds of a mail go, beside what was planned."""
    rows = ["## Where the microseconds of a mail go", ""]
    rows += ["py-spy's samples of one process that takes chunks of 256 through every stage, scored"]
    rows += ["live, by the innermost stage on the stack (`make bench ARGS=profile`).", ""]
    rows += ["| stage | budget, µs CPU a mail | measured |", "|---|---|---|"]
    rows += [f"| {name} | {one['budget']} | {one['us']:.0f} |" for name, one in stages.items()]
    total = sum(one["us"] for one in stages.values())
    return "\n".join([*rows, f"| all | 300-600 | {total:.0f} |", ""])


def _section(name: str, one: Figures) -> str:
    when = f"`{one['command']}`, {one['at']}, {one['took_s']} s, load before: {one['load_before']}"
    printed = "\n".join(one["printed"])
    return f"## {name}\n\n{_title(name)}\n\n{when}\n\n```\n{printed}\n```\n"


def _title(name: str) -> str:
    """First line of the part's docstring."""
    source = Path(__file__).with_name(f"bench_{name}.py").read_text()
    return (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]


if __name__ == "__main__":
    write()
