"""What the mails of a campaign were made of, kept under the hash of its content.

A configuration, the files of its template and the catalogue as readers saw it: with these and a
decision record a mail can be made again (serve.replay), whatever has changed since.
"""

import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any, Final
from zipfile import ZipFile, ZipInfo

import polars as pl
import structlog

from reco import __version__
from reco.campaigns.decisions import FOLDER, put
from reco.campaigns.forgetting import GRACE
from reco.catalogue import Catalogue
from reco.embedded import Services
from reco.errors import NotFound
from reco.events.lake import Lake
from reco.events.schema import conform
from reco.tables import ITEMS
from render.compile import template_folder
from render.sources import folder_version
from serve.segments import campaign_of

log = structlog.get_logger()

# Upkeep takes what is older than GRACE and has no record yet; mails may be on their way.
RENEWED: Final = GRACE / 2
KEPT_AGAIN_S: Final = 3_600.0
TRIED_AGAIN_S: Final = 60.0
# Columns of an item that a reader can see; a change of stock makes no new version.
SEEN: Final = ("item_id", "title", "category", "price", "currency", "url", "image_url")


@dataclass(frozen=True, slots=True)
class Bundle:
    """What mails have in common; `links` and `dkim` are fingerprints of secrets, not these."""

    campaign: dict[str, Any]
    template: str
    catalogue: str
    public_url: str
    links: str
    dkim: str
    dkim_selector: str
    reco: str


class Archive:
    """Keeps and finds bundles in the lake. Threads may share it; all writes may be repeated."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def keep(self, spec: bytes, template: str, catalogue: Catalogue, services: Services) -> str:
        """Store what mails of a campaign (JSON `spec`) are made of; gives its hash.

        `template` is the version that was compiled. Raises OSError when the lake cannot be written.
        """
        folder = template_folder(campaign_of(spec).template)
        if not self._has("templates", f"{template}.zip") and folder_version(folder) == template:
            self._write(_zipped(folder), "templates", f"{template}.zip")
        bundle = {
            "campaign": json.loads(spec),
            "template": template,
            "catalogue": self._keep_catalogue(catalogue),
            "public_url": services.public_url,
            **fingerprints(services),
            "reco": __version__,
        }
        content = json.dumps(bundle).encode()  # the order of utm parameters is that of the links
        made_of = blake2b(content, digest_size=12).hexdigest()
        if not self._has("bundles", f"{made_of}.json"):
            self._write(content, "bundles", f"{made_of}.json")
        return made_of

    def bundle(self, made_of: str) -> Bundle:
        """The bundle of a hash. Raises NotFound."""
        return Bundle(**json.loads(self._read("bundles", f"{made_of}.json")))

    def catalogue(self, version: str) -> Catalogue:
        """The catalogue as readers saw it. Raises NotFound."""
        content = self._read("catalogues", f"{version}.parquet")
        return Catalogue(conform(pl.read_parquet(BytesIO(content)), ITEMS))

    @contextmanager
    def template(self, version: str) -> Iterator[Path]:
        """A folder with the template of a version, for as long as the block lasts. NotFound."""
        content = self._read("templates", f"{version}.zip")
        with TemporaryDirectory(prefix="reco-template-") as folder:
            with ZipFile(BytesIO(content)) as files:
                files.extractall(folder)
            yield Path(folder)

    def _keep_catalogue(self, catalogue: Catalogue) -> str:
        frame = catalogue.frame.select(SEEN)
        content = BytesIO()
        frame.write_ipc(content)
        version = blake2b(content.getbuffer(), digest_size=12).hexdigest()
        if not self._has("catalogues", f"{version}.parquet"):
            parquet = BytesIO()
            frame.write_parquet(parquet)
            self._write(parquet.getvalue(), "catalogues", f"{version}.parquet")
        return version

    def _has(self, *parts: str) -> bool:
        """Whether it is kept; a file that upkeep could soon take is written anew, for its time."""
        info = self._lake.filesystem.get_file_info(self._lake.path(FOLDER, *parts))
        if info.is_file and info.mtime is not None and info.mtime < datetime.now(UTC) - RENEWED:
            try:
                self._write(self._read(*parts), *parts)
            except NotFound:  # upkeep was faster
                return False
        return bool(info.is_file)

    def _read(self, *parts: str) -> bytes:
        try:
            with self._lake.filesystem.open_input_stream(self._lake.path(FOLDER, *parts)) as stream:
                return bytes(stream.read())
        except FileNotFoundError as error:
            kind, name = parts[0].removesuffix("s"), parts[1].partition(".")[0]
            raise NotFound(
                f"The {kind} of version {name} is not kept any more.",
                "Its last mails are older than `reco tidy` was told to remember.",
            ) from error

    def _write(self, content: bytes, *parts: str) -> None:
        put(self._lake, content, *parts)


class Keeping:
    """Keeps what a campaign's mails are made of for as long as such mails are made.

    A replica lives for weeks, and upkeep comes every night. Threads may share it.
    """

    def __init__(
        self, keep: Callable[[], str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._keep = keep
        self._clock = clock
        self._lock = Lock()
        self._due = clock()
        self._made_of = ""

    def made_of(self) -> str:
        """The hash under which it is kept; "" while the lake does not take it."""
        with self._lock:
            if self._clock() >= self._due:
                try:
                    self._made_of = self._keep()
                    self._due = self._clock() + KEPT_AGAIN_S
                except OSError as error:
                    log.warning("what mails are made of is not kept", why=str(error))
                    self._due = self._clock() + TRIED_AGAIN_S
            return self._made_of


def fingerprints(services: Services) -> dict[str, str]:
    """What tells whether links and signatures would be the same again."""
    dkim = services.dkim_key
    return {
        "links": _fingerprint(services.link_key),
        "dkim": _fingerprint(dkim) if dkim else "",
        "dkim_selector": services.dkim_selector,
    }


def _fingerprint(key: bytes) -> str:
    return hmac.digest(key, b"reco decision records", "sha256")[:8].hex()


def _zipped(folder: Path) -> bytes:
    content = BytesIO()
    with ZipFile(content, "w") as files:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            files.writestr(ZipInfo(path.relative_to(folder).as_posix()), path.read_bytes())
    return content.getvalue()
