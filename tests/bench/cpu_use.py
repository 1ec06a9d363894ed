"""CPU microseconds and memory of the processes of a run, by what they are: from /proc, on Linux.

Holds on a busy machine too, where a rate says more about the neighbours than about the code.
"""

import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

EVERY_S: Final = 0.5
TICK_US: Final = 1e6 / os.sysconf("SC_CLK_TCK")
PAGE_MB: Final = os.sysconf("SC_PAGE_SIZE") / 1e6
KINDS: Final = (
    (r"ray::SenderActor", "sender"),
    (r"ray::CampaignRunner", "driver"),
    (r"ray::ServeReplica:\w+:(\w+)", r"\1"),
    (r"ray::Serve|ray::Proxy|haproxy", "serve"),
    (r"ray::", "ray workers"),
    (r"raylet|gcs_server|/ray/dashboard|/ray/_private|log_monitor", "ray itself"),
    (r"postgres", "postgres"),
    (r"valkey|redis-server", "valkey"),
    (r"smtp-sink", "smtp-sink"),
    (r"reco campaign", "driver"),
    (r"bench_", "benchmark"),
)


@dataclass(slots=True)
class Seen:
    """One process: CPU ticks when first and last seen, memory of its own then and at most."""

    kind: str
    first: int
    last: int
    begun_mb: float
    most_mb: float


@dataclass(slots=True)
class Use:
    """What the processes below this one, or named after `home`, used in the block."""

    home: str
    processes: dict[tuple[int, str], Seen] = field(default_factory=dict)

    def cpu_us(self) -> dict[str, float]:
        """CPU microseconds by kind of process, the most expensive first."""
        spent: dict[str, float] = defaultdict(float)
        for seen in self.processes.values():
            spent[seen.kind] += TICK_US * (seen.last - seen.first)
        return dict(sorted(spent.items(), key=lambda kind: -kind[1]))

    def memory_mb(self) -> dict[str, float]:
        """Most memory of one process of each kind."""
        most: dict[str, float] = defaultdict(float)
        for seen in self.processes.values():
            most[seen.kind] = max(most[seen.kind], seen.most_mb)
        return dict(most)

    def look(self, *, begin: bool = False) -> None:
        """Take in the processes as they are; one that is new counts from its start."""
        for pid, (name, ticks, born) in _family(self.home).items():
            mb = _own_mb(pid)
            seen = self.processes.get((pid, born))
            if seen is None:
                first = ticks if begin else 0
                self.processes[pid, born] = Seen(_kind(name), first, ticks, mb, mb)
            else:
                seen.kind = _kind(name)
                seen.last, seen.most_mb = ticks, max(seen.most_mb, mb)


@contextmanager
def watched(home: Path) -> Iterator[Use]:
    """Look at the processes until the block ends."""
    use, ended = Use(str(home)), threading.Event()
    use.look(begin=True)

    def watch() -> None:
        while not ended.wait(EVERY_S):
            use.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield use
    finally:
        use.look()
        ended.set()
        thread.join()


def _family(home: str) -> dict[int, tuple[str, int, str]]:
    """Name, CPU ticks and birth of this process, of all below it and of those named after `home`,
    with all below them.
    """
    found: dict[int, tuple[str, int, str]] = {}
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (line := _stat(entry)):
            parents[int(entry.name)] = int(line[1])
            found[int(entry.name)] = (_name(entry), int(line[11]) + int(line[12]), line[19])
    ours = {pid for pid, (name, _, _) in found.items() if pid == os.getpid() or home in name}

    def belongs(pid: int) -> bool:
        while pid > 1:
            if pid in ours:
                return True
            pid = parents.get(pid, 0)
        return False

    return {pid: about for pid, about in found.items() if belongs(pid)}


def family(home: str, pattern: str) -> list[int]:
    """Pids of the processes of this run whose command line has the pattern, oldest first."""
    found = _family(home)
    fit = [pid for pid, (name, _, _) in found.items() if re.search(pattern, name)]
    return sorted(fit, key=lambda pid: int(found[pid][2]))


def _stat(entry: Path) -> list[str]:
    """/proc/PID/stat behind the name; empty when the process is gone."""
    try:
        return (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _name(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _own_mb(pid: int) -> float:
    """Resident memory without what is shared with others, such as Ray's object store."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0.0
    return PAGE_MB * (int(pages[1]) - int(pages[2]))


def _kind(name: str) -> str:
    for pattern, kind in KINDS:
        if match := re.search(pattern, name):
            return match.expand(kind)
    return "python" if "python" in name else "others"
