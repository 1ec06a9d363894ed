"""Bodies of requests, read no further than they may be long."""

from urllib.parse import parse_qs

from fastapi import HTTPException, Request


async def read_body(request: Request, most_bytes: int) -> bytes:
    """The whole body. Raises HTTPException 413 as soon as it is longer than `most_bytes`."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most_bytes:
            raise HTTPException(413, f"The body is larger than {most_bytes:,} bytes.")
        parts.append(part)
    return b"".join(parts)


async def read_form(request: Request, most_bytes: int) -> dict[str, list[str]]:
    """Fields of an urlencoded form. Raises as `read_body` does."""
    return parse_qs((await read_body(request, most_bytes)).decode(errors="replace"))
