"""A Maildir of what came back: each message is taken once, and kept under cur/."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from reco.errors import NotFound

POLL_S: Final = 5.0


def take_new(folder: Path, take: Callable[[bytes], Counter[str]]) -> Counter[str]:
    """Give every message in new/ to `take`, then move it to cur/; the sum of what it counted.

    A message is moved after it was taken: one that is taken twice does nothing the second time.
    Raises NotFound when the folder is no Maildir.
    """
    new, cur = folder / "new", folder / "cur"
    if not new.is_dir():
        raise NotFound(
            f"{folder} is no Maildir.",
            "It has no folder new/.",
            "Give the folder into which your mail server delivers bounces+…@.",
        )
    cur.mkdir(exist_ok=True)
    counts: Counter[str] = Counter()
    for path in sorted(new.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            counts += take(path.read_bytes())
            counts["messages"] += 1
            path.rename(cur / f"{path.name}:2,S")
    return counts


def watch(
    folder: Path,
    take: Callable[[bytes], Counter[str]],
    told: Callable[[Counter[str]], None],
    stopped: Callable[[], bool] = lambda: False,
    poll_s: float = POLL_S,
) -> None:
    """Take what arrives until stopped; `told` hears of every round that found something."""
    while not stopped():
        if counts := take_new(folder, take):
            told(counts)
        time.sleep(poll_s)
