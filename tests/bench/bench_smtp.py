"""Mails a second of our pool beside stock aiosmtplib, into postfix's smtp-sink on loopback.

python -m tests.bench.bench_smtp [--mails 5000] [--size-kb 25] [--connections 8]
"""

import argparse
import asyncio
import base64
import os
import platform
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable

import aiosmtplib
import uvloop

from reco.campaigns.smtp import SmtpPool

SINK = shutil.which("smtp-sink", path="/usr/sbin:/usr/bin:/usr/libexec/postfix")
Send = Callable[[str, str, bytes], Awaitable[object]]


def mail(size_kb: int) -> bytes:
    """A mail of about this size with a base64 body."""
    text = base64.encodebytes(random.Random(1).randbytes(size_kb * 740)).replace(b"\n", b"\r\n")
    head = b"From: a@example.com\r\nTo: b@example.com\r\nSubject: bench\r\n"
    return head + b"Content-Transfer-Encoding: base64\r\n\r\n" + text


async def rate(send: Send, mails: int, connections: int, data: bytes) -> tuple[float, float]:
    """Mails a second and CPU microseconds a mail of this process."""
    left = iter(range(mails))

    async def worker() -> None:
        for i in left:
            await send("news@example.com", f"user{i}@example.com", data)

    start, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(connections)))
    spent = time.process_time() - cpu
    return mails / (time.perf_counter() - start), 1e6 * spent / mails


async def ours(port: int, mails: int, connections: int, data: bytes) -> tuple[float, float]:
    """SmtpPool."""
    async with SmtpPool(f"smtp://127.0.0.1:{port}", connections, mails) as pool:
        return await rate(pool.send, mails, connections, data)


async def stock(port: int, mails: int, connections: int, data: bytes) -> tuple[float, float]:
    """aiosmtplib.SMTP.sendmail on as many connections."""
    clients: asyncio.Queue[aiosmtplib.SMTP] = asyncio.Queue()
    for _ in range(connections):
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False)
        await client.connect()
        clients.put_nowait(client)

    async def send(mail_from: str, rcpt_to: str, body: bytes) -> None:
        client = await clients.get()
        await client.sendmail(mail_from, [rcpt_to], body)
        clients.put_nowait(client)

    result = await rate(send, mails, connections, data)
    while not clients.empty():
        await clients.get_nowait().quit()
    return result


def main() -> None:
    """Print one line a client."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mails", type=int, default=5_000)
    parser.add_argument("--size-kb", type=int, default=25)
    parser.add_argument("--connections", type=int, default=8)
    args = parser.parse_args()
    if SINK is None:
        raise SystemExit("smtp-sink is missing: it comes with Debian's package postfix.")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [SINK, *(["-u", "nobody"] if os.geteuid() == 0 else []), f"127.0.0.1:{port}", "100"]
    sink = subprocess.Popen(command)
    try:
        time.sleep(0.3)
        data = mail(args.size_kb)
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, {len(data) / 1024:.0f} KB a mail",
            flush=True,
        )
        for client in (stock, ours):
            per_s, cpu_us = uvloop.run(client(port, args.mails, args.connections, data))
            print(f"{client.__doc__ or '':45} {per_s:7.0f} mails/s {cpu_us:6.0f} us CPU a mail")
    finally:
        sink.terminate()
        sink.wait()


if __name__ == "__main__":
    main()
