"""/console: campaigns as they run, one mail and why it is so, results, and the state of the data.

Server-rendered pages behind the API key; a page that moves fetches itself anew.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from reco.campaigns.progress import progress
from reco.campaigns.store import CampaignState
from reco.errors import RecoError
from reco.outcomes.gather import campaign_report
from reco.outcomes.report import to_html
from reco.outcomes.wording import number, share
from serve.api import Door
from serve.bodies import read_form
from serve.health import data_health
from serve.preview import assemble_one, preview_page
from serve.problems import problem_of
from serve.sessions import COOKIE, LASTS_S, Sessions

REFRESH_S: Final = 2
MOST_BYTES: Final = 10_000  # of a form
WRONG_KEY_S: Final = 0.5  # a guess costs time
HOME: Final = "/console"

Answer = Callable[[], Awaitable[Response]]


class Pages:
    """Renders pages with the headers that keep them from doing harm."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._environment = Environment(
            loader=PackageLoader("serve", "pages"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {"number": number, "share": share}

    def show(self, name: str, request: Request, status: int = 200, **facts: Any) -> HTMLResponse:
        """A page of serve/pages."""
        nonce = secrets.token_urlsafe(16)
        html = self._environment.get_template(f"{name}.html.jinja").render(
            facts, nonce=nonce, token=self._sessions.form_token(request.cookies), refresh=REFRESH_S
        )
        return HTMLResponse(html, status, _headers(f"'nonce-{nonce}'"))

    async def answer(self, request: Request, make: Answer) -> Response:
        """The page that `make` gives, the door for a stranger, or the error in words."""
        if not self._sessions.valid(request.cookies):
            return RedirectResponse(f"{HOME}/login", 303)
        try:
            return await make()
        except RecoError as error:
            return self.show("error", request, problem_of(error).status, error=error)


def router(door: Door) -> APIRouter:
    """Routes of /console on a gateway."""
    sessions = Sessions(door.stores.services.api_key)
    routes = APIRouter(prefix=HOME, include_in_schema=False)
    pages = Pages(sessions)
    _login_routes(routes, sessions, pages)
    _campaign_routes(routes, door, pages)
    _act_routes(routes, door, sessions, pages)
    _mail_routes(routes, door, pages)
    return routes


def _login_routes(routes: APIRouter, sessions: Sessions, pages: Pages) -> None:
    @routes.get("/login")
    async def login(request: Request) -> Response:
        return pages.show("login", request, wrong=False)

    @routes.post("/login")
    async def enter(request: Request) -> Response:
        cookie = sessions.open((await _form(request)).get("key", ""))
        if cookie is None:
            await asyncio.sleep(WRONG_KEY_S)
            return pages.show("login", request, 401, wrong=True)
        response = RedirectResponse(HOME, 303)
        response.set_cookie(
            COOKIE, cookie, LASTS_S, path=HOME, httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return response


def _campaign_routes(routes: APIRouter, door: Door, pages: Pages) -> None:
    engine = door.stores.engine

    @routes.get("")
    async def campaigns(request: Request) -> Response:
        async def make() -> Response:
            stored = await asyncio.to_thread(door.campaigns.all)
            found = [
                (one, await asyncio.to_thread(progress, engine, one.campaign.id)) for one in stored
            ]
            return pages.show("campaigns", request, campaigns=found)

        return await pages.answer(request, make)

    @routes.get("/campaigns/{campaign_id}")
    async def campaign(campaign_id: str, request: Request) -> Response:
        async def make() -> Response:
            stored = await asyncio.to_thread(door.campaigns.get, campaign_id)
            now = await asyncio.to_thread(progress, engine, campaign_id)
            return pages.show("campaign", request, stored=stored, progress=now)

        return await pages.answer(request, make)

    @routes.get("/campaigns/{campaign_id}/results")
    async def results(campaign_id: str, request: Request) -> Response:
        async def make() -> Response:
            url = door.stores.services.database_url
            found = await asyncio.to_thread(
                campaign_report, campaign_id, door.stores.lake, engine, url
            )
            return HTMLResponse(to_html(found), headers=_headers("'none'"))

        return await pages.answer(request, make)

    @routes.get("/data")
    async def data(request: Request) -> Response:
        async def make() -> Response:
            return pages.show(
                "data", request, health=await asyncio.to_thread(data_health, door.stores)
            )

        return await pages.answer(request, make)


def _act_routes(routes: APIRouter, door: Door, sessions: Sessions, pages: Pages) -> None:
    async def act(campaign_id: str, request: Request, to: CampaignState) -> Response:
        async def make() -> Response:
            form = await _form(request)
            if not sessions.form_is_ours(request.cookies, form.get("token", "")):
                return pages.show("error", request, 403, error=None)
            if to is CampaignState.RUNNING:
                stored = await asyncio.to_thread(door.campaigns.resume, campaign_id)
                if stored.goes_on:
                    await asyncio.to_thread(door.start, stored.campaign, resumed=True)
            else:
                await asyncio.to_thread(door.campaigns.move, campaign_id, to, "by hand")
            return RedirectResponse(f"{HOME}/campaigns/{campaign_id}", 303)

        return await pages.answer(request, make)

    @routes.post("/campaigns/{campaign_id}/pause")
    async def pause(campaign_id: str, request: Request) -> Response:
        return await act(campaign_id, request, CampaignState.PAUSED)

    @routes.post("/campaigns/{campaign_id}/resume")
    async def resume(campaign_id: str, request: Request) -> Response:
        return await act(campaign_id, request, CampaignState.RUNNING)


def _mail_routes(routes: APIRouter, door: Door, pages: Pages) -> None:
    @routes.get("/campaigns/{campaign_id}/mail")
    async def mail(campaign_id: str, request: Request, user: str = "", arm: str = "") -> Response:
        async def make() -> Response:
            stored = await asyncio.to_thread(door.campaigns.get, campaign_id)
            return pages.show("mail", request, stored=stored, user=user.strip(), arm=arm)

        return await pages.answer(request, make)

    @routes.get("/campaigns/{campaign_id}/mail/page")
    async def mail_page(campaign_id: str, request: Request, user: str, arm: str = "") -> Response:
        async def make() -> Response:
            stored = await asyncio.to_thread(door.campaigns.get, campaign_id)
            made = await assemble_one(door.graph, stored.campaign, user, arm or None)
            html = await asyncio.to_thread(
                preview_page, stored.campaign, user, made, door.stores.services
            )
            return HTMLResponse(html, headers=_headers("'none'", framed=True))

        return await pages.answer(request, make)


async def _form(request: Request) -> dict[str, str]:
    """Fields of a small urlencoded form."""
    form = await read_form(request, MOST_BYTES)
    return {name: values[-1] for name, values in form.items()}


def _headers(scripts: str, *, framed: bool = False) -> dict[str, str]:
    """Nothing is loaded from elsewhere but a mail's pictures; nobody may frame a page but us."""
    frames = "'self'" if framed else "'none'"
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data: http: https:; "
        f"script-src {scripts}; connect-src 'self'; frame-src 'self'; form-action 'self'; "
        f"base-uri 'none'; frame-ancestors {frames}"
    )
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
    }
