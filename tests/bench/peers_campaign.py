"""What a user would write instead of a campaign: one asyncio process, no Ray, rules or ledger.

The same parts (redis, torch, Jinja2 over MJML compiled once, EmailMessage, aiosmtplib) and the same
size of mail; then one stock aiosmtplib process that sends mails that were built before.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from time import perf_counter, process_time
from typing import Final

import aiosmtplib
import jinja2
import numpy as np
import redis.asyncio
import torch
import uvloop
from mjml import mjml2html

CONNECTIONS: Final = 8
CHUNK: Final = 256
WAITING: Final = 2_000  # mails between making and sending
WIDTH: Final = 128
BLOCK: Final = """<mj-section><mj-column><mj-image src="{{ item.image_url }}" />
<mj-text>{{ item.title }} - {{ item.price }} USD</mj-text>
<mj-button href="{{ item.url }}">View</mj-button></mj-column></mj-section>"""
PAGE: Final = """<mjml><mj-body><mj-section><mj-column><mj-text>For {{ user }}</mj-text></mj-column>
</mj-section><mj-raw>{% for item in recommendations[:5] %}</mj-raw>BLOCK
<mj-raw>{% endfor %}</mj-raw>
<mj-section><mj-column><mj-text>FILLER</mj-text></mj-column></mj-section></mj-body></mjml>"""
FILLER: Final = "Lorem ipsum dolor sit amet. "

Mail = tuple[str, bytes]
Put = Callable[[Mail], Awaitable[None]]


@dataclass(slots=True)
class Rate:
    """What one peer did: mails a second, CPU microseconds a mail of its process."""

    per_s: float = 0.0
    cpu_us: float = 0.0
    mails: list[bytes] = field(default_factory=list)


def plain_script(port: int, redis_url: str, mails: int, items: int, html_bytes: int) -> Rate:
    """Features by MGET, a matrix product, a template and EmailMessage; mail after mail."""
    torch.set_num_threads(1)
    return uvloop.run(_plain_script(port, redis_url, mails, items, html_bytes))


def prebuilt(port: int, mails: int, built: Sequence[bytes]) -> Rate:
    """aiosmtplib alone, with nothing to do but send."""

    async def produce(put: Put) -> None:
        for i in range(mails):
            await put((f"u{i}@mail.example", built[i % len(built)]))

    return uvloop.run(_timed(port, mails, produce))


async def _plain_script(port: int, redis_url: str, mails: int, items: int, size: int) -> Rate:
    client = redis.asyncio.from_url(redis_url)
    draw = np.random.default_rng(0)
    async with client.pipeline(transaction=False) as pipeline:
        for i in range(mails):
            pipeline.set(f"bench:{i}", draw.standard_normal(WIDTH, dtype=np.float32).tobytes())
        await pipeline.execute()
    matrix = torch.randn(items, WIDTH)
    shop = "https://shop.example"
    catalogue = [
        {"image_url": f"{shop}/{i}.jpg", "title": f"Item {i}", "price": 9.99, "url": f"{shop}/{i}"}
        for i in range(items)
    ]
    template = _template(size, catalogue[:5])

    async def produce(put: Put) -> None:
        for start in range(0, mails, CHUNK):
            ids = range(start, min(start + CHUNK, mails))
            rows = await client.mget([f"bench:{i}" for i in ids])
            users = torch.from_numpy(np.frombuffer(b"".join(rows), np.float32).copy())
            best = (users.reshape(-1, WIDTH) @ matrix.T).topk(20).indices.tolist()
            for i, picks in zip(ids, best, strict=True):
                shown = [catalogue[pick] for pick in picks]
                html = template.render(user=f"user {i}", recommendations=shown)
                await put((f"u{i}@mail.example", _message(i, html)))

    rate = await _timed(port, mails, produce)
    await client.delete(*(f"bench:{i}" for i in range(mails)))
    await client.aclose()
    return rate


def _template(size: int, shown: list[dict[str, object]]) -> jinja2.Template:
    """A page whose HTML has about `size` bytes."""
    environment = jinja2.Environment(autoescape=True)

    def page(fillers: int) -> jinja2.Template:
        source = PAGE.replace("BLOCK", BLOCK).replace("FILLER", FILLER * fillers)
        return environment.from_string(mjml2html(source))

    bare = len(page(0).render(user="user 1", recommendations=shown))
    return page(max(size - bare, 0) // len(FILLER))


def _message(i: int, html: str) -> bytes:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = (
        "news@shop.example",
        f"u{i}@mail.example",
        "For you",
    )
    mail.set_content("See the web version")
    mail.add_alternative(html, subtype="html")
    return mail.as_bytes()


async def _timed(port: int, mails: int, produce: Callable[[Put], Awaitable[None]]) -> Rate:
    """The same senders for both peers."""
    queue: asyncio.Queue[Mail | None] = asyncio.Queue(maxsize=WAITING)
    rate = Rate()

    async def send() -> None:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, use_tls=False, start_tls=False)
        await client.connect()
        while (mail := await queue.get()) is not None:
            await client.sendmail("news@shop.example", [mail[0]], mail[1])
        await client.quit()

    async def put(mail: Mail) -> None:
        if len(rate.mails) < 64:
            rate.mails.append(mail[1])
        await queue.put(mail)

    started, cpu = perf_counter(), process_time()
    senders = [asyncio.create_task(send()) for _ in range(CONNECTIONS)]
    await produce(put)
    for _ in senders:
        await queue.put(None)
    await asyncio.gather(*senders)
    rate.per_s = mails / (perf_counter() - started)
    rate.cpu_us = 1e6 * (process_time() - cpu) / mails
    return rate
