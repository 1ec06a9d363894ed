"""Runs benchmarks one after the other, keeps what each printed, and writes docs/BENCHMARKS.md anew.

    python tests/bench/run.py [part ...]

A part is tests/bench/bench_<part>.py. What it found stays in docs/benchmarks/<part>.json with the
machine, the versions and the command, so parts may be refreshed one by one. Without a name those
run that tests/bench/document.py lists; what is not there takes long, or belongs to no promise of
speed. A part that fails keeps its old figures, and ends the run with its code.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.document import KEPT, PARTS, write  # noqa: E402

PACKAGES: Final = (
    "ray", "torch", "numpy", "polars", "pyarrow", "redis", "psycopg", "fastapi", "grpcio",
    "aiosmtplib", "uvloop", "jinja2", "duckdb",
)  # fmt: skip


def main() -> None:
    """Run the parts that are named, or those of the document."""
    scripts = {p.stem.removeprefix("bench_"): p for p in ROOT.glob("tests/bench/bench_*.py")}
    names = sys.argv[1:] or [part.name for part in PARTS]
    if unknown := sorted(set(names) - scripts.keys()):
        sys.exit(f"There is no benchmark {', '.join(unknown)}: {', '.join(sorted(scripts))}.")
    KEPT.mkdir(parents=True, exist_ok=True)
    for name in names:
        print(f"\n== {name} ==", flush=True)
        run(name, scripts[name])
    write()
    print("\nwritten: docs/BENCHMARKS.md")


def run(name: str, script: Path) -> None:
    """One part, printed as it goes. Ends the program when it fails."""
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        options = ["--json", str(figures)] if '"--json"' in script.read_text() else []
        at, load, began = datetime.now(UTC), os.getloadavg()[0], time.perf_counter()
        code, printed = _echoed([sys.executable, str(script), *options])
        if code:
            sys.exit(code)
        kept = {
            "part": name,
            "command": f"make bench ARGS={name}",
            "at": f"{at:%Y-%m-%d %H:%M} UTC",
            "took_s": round(time.perf_counter() - began),
            "load_before": round(load, 1),
            "machine": machine(),
            "versions": versions(),
            "figures": json.loads(figures.read_text()) if figures.exists() else {},
            "printed": printed,
        }
    (KEPT / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


def _echoed(command: list[str]) -> tuple[int, list[str]]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            if "(raylet)" not in line:  # what Ray repeats of its own log is no figure
                lines.append(line.rstrip())
    return process.returncode, lines


def machine() -> dict[str, object]:
    """What the figures depend on most."""
    names = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = [line for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    return {
        "cpu": names[0].partition(":")[2].strip() if names else platform.processor(),
        "cpus": os.cpu_count(),
        "memory_gb": round(int(memory[0].split()[1]) / 1e6, 1) if memory else None,
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Python and what the figures are made with."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


if __name__ == "__main__":
    main()
