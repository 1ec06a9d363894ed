"""A load of HTTP requests by wrk: keep-alive connections, each asking anew when answered."""

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
WRK: Final = shutil.which("wrk")
SCRIPT: Final = """
local number = %(first)d
local headers = {["X-API-Key"] = "%(api_key)s", ["Content-Type"] = "application/json"}
function request()
   local user = string.format("u%%06d", number %% %(users)d)
   local body = string.gsub(string.gsub('%(body)s', "{user}", user), "{i}", tostring(number))
   number = number + 1
   return wrk.format("POST", "%(path)s", headers, body)
end
function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\\n{"answers": %%d, "seconds": %%f, "p50_ms": %%f, "p95_ms": %%f, "p99_ms": %%f, ' ..
      '"refused": %%d, "lost": %%d}', summary.requests, summary.duration / 1e6,
      latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3,
      errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked: `body` with {i} in place of the number of the request, {user} of a user id."""

    port: int
    path: str
    api_key: str = field(repr=False)
    body: str
    users: int
    connections: int = 64
    seconds: float = 20.0
    warm_s: float = 5.0  # asked but not counted


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of it: answers a second, milliseconds until one.

    refused      answers with status 400 and above
    lost         requests without an answer
    all_answers  with those of the first seconds, which count for nothing else
    """

    per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    answers: int
    refused: int
    lost: int
    all_answers: int


def load(plan: Plan) -> Answered:
    """Ask as planned. Raises SystemExit when wrk is not installed."""
    warm = _asked(plan, plan.warm_s, 1)
    found = _asked(plan, plan.seconds, 1_000_000)  # no number is asked for twice
    return Answered(
        per_s=round(found["answers"] / found["seconds"], 1),
        p50_ms=round(found["p50_ms"], 1),
        p95_ms=round(found["p95_ms"], 1),
        p99_ms=round(found["p99_ms"], 1),
        answers=int(found["answers"]),
        refused=int(found["refused"]),
        lost=int(found["lost"]),
        all_answers=int(found["answers"] + warm["answers"]),
    )


def _asked(plan: Plan, seconds: float, first: int) -> dict[str, float]:
    if WRK is None:
        raise SystemExit("wrk is missing: it comes with Debian's package wrk.")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "load.lua"
        asked = {name: getattr(plan, name) for name in ("path", "api_key", "body", "users")}
        script.write_text(SCRIPT % (asked | {"first": first}))
        command = [WRK, "-t1", f"-c{plan.connections}", f"-d{round(seconds)}s", "--timeout=60s"]
        command += [f"--script={script}", f"http://{HOST}:{plan.port}"]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(told.splitlines()[-1])
    return found
