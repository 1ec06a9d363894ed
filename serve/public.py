"""Signed links and pictures: what the readers of mails reach without a key."""

import asyncio
from base64 import b64decode
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from serve.metrics import Meters
from serve.readers import Readers
from serve.visit import visit_of

PIXEL: Final = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
UNSEEN: Final = {
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex",
    "Referrer-Policy": "no-referrer",
}
PICTURE: Final = {"Cache-Control": "public, max-age=86400"}
PAGE: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><title>{title}</title>'
    '<body style="font:16px sans-serif;max-width:32em;margin:4em auto;padding:0 1em">'
    "<h1>{title}</h1>{body}</body></html>"
)
CONFIRM: Final = (
    "<p>Do you want no more mails of this kind?</p>"
    '<form method="post"><button style="font:inherit;padding:.5em 1em">Unsubscribe</button></form>'
)


def router(readers: Readers, meters: Meters) -> APIRouter:
    """Routes for mail readers. GET changes nothing but the count of clicks and opens (RFC 8058)."""
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/c/{token}", methods=["GET", "HEAD"])
    async def click(token: str, request: Request) -> Response:
        target = await asyncio.to_thread(readers.click, token, visit_of(request))
        meters.public("click")
        return RedirectResponse(target, 302, UNSEEN)

    @routes.api_route("/o/{token}", methods=["GET", "HEAD"])
    async def opened(token: str, request: Request) -> Response:
        await asyncio.to_thread(readers.opened, token, visit_of(request))
        meters.public("open")
        return Response(PIXEL, media_type="image/gif", headers=UNSEEN)

    @routes.get("/u/{token}")
    async def confirm(token: str) -> Response:
        readers.subscription(token)
        return HTMLResponse(PAGE.format(title="Unsubscribe", body=CONFIRM), headers=UNSEEN)

    @routes.post("/u/{token}")
    async def unsubscribe(token: str) -> Response:
        await asyncio.to_thread(readers.unsubscribe, token)
        meters.public("unsubscribe")
        done = PAGE.format(title="Done", body="<p>You will get no more mails from us.</p>")
        return HTMLResponse(done, headers=UNSEEN)

    @routes.get("/assets/categories/{name}")
    async def picture(name: str) -> Response:
        png = await asyncio.to_thread(readers.picture, name)
        return Response(png, media_type="image/png", headers=PICTURE)

    @routes.get("/items/{item_id}")
    async def item(item_id: str) -> Response:
        return HTMLResponse(PAGE.format(title=readers.item_page(item_id), body=""))

    return routes
