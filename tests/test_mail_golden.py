"""One mail of the stock template from end to end, as a mail program reads it."""

import re
import shutil
import subprocess
from datetime import UTC, datetime
from email import message_from_bytes, policy
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest

from reco.mac import Mac
from reco.models.slates import Reason
from render.compile import compile_template
from render.formats import format_price
from render.links import Link, LinkKind, LinkSigner
from render.message import Assembler, Sender, message_id
from render.reasons import reason_sentence
from render.renderer import Interest, ItemView, RecipientView, Renderer

KEY = bytes(range(32))
ROOT = "https://mail.shop.example"
DATE = datetime(2017, 12, 4, 9, tzinfo=UTC)
GOODS = (
    ("Strawberries, organic, 16 oz", 3.99, "PRODUCE", reason_sentence(Reason.REPEAT, gap_days=14)),
    ("Crème fraîche & chives", 2.49, "DELI", reason_sentence(Reason.BOUGHT_TOGETHER)),
    ("Sourdough loaf", None, "PASTRY", ""),
)
TEXT = """\
Weekly digest for Zoë
Corner Market, December 4, 2017

PICKED FOR YOU

* Strawberries, organic, 16 oz, $3.99
  You buy this about every two weeks.
  {link1}

* Crème fraîche & chives, $2.49
  Goes well with what you bought.
  {link2}

* Sourdough loaf
  {link3}

10% OFF YOUR NEXT BASKET
A small thank-you for shopping with us so often. Show the code at the till or enter it online.
Your code: FRESH10
https://shop.example/offers/fresh10

WHAT SHALL WE SHOW YOU MORE OF?
* Fruit & vegetables: {interest}

--
You get this mail because you are on our list for it.
Unsubscribe: {unsubscribe}
Corner Market, 1 Example Street, 10115 Berlin
"""


def url(kind, number=0):
    return LinkSigner(KEY).url(ROOT, Link(kind, "weekly-49", "user-7", number))


@pytest.fixture(scope="module")
def sent():
    """The bytes that go to SMTP."""
    renderer = Renderer(
        compile_template("digest"),
        {"postal_address": "1 Example Street, 10115 Berlin", "sent_at": DATE},
    )
    picks = [
        ItemView(
            str(n),
            title,
            format_price(price),
            f"{ROOT}/assets/{n}.png",
            url(LinkKind.CLICK, n),
            category,
            reason,
        )
        for n, (title, price, category, reason) in enumerate(GOODS, 1)
    ]
    recipient = RecipientView("user-7", "zoe@example.com", "Zoë", "en", "buyer")
    unsubscribe = url(LinkKind.UNSUBSCRIBE)
    rendered = renderer.render(
        recipient,
        picks,
        {
            "unsubscribe_url": unsubscribe,
            "interests": [Interest("Fruit & vegetables", url(LinkKind.PREFERENCES, 1))],
        },
    )
    sender = Sender("Corner Market", "news@shop.example", unsubscribe_email="out@shop.example")
    identity = message_id(Mac(KEY), "weekly-49", "user-7", "shop.example")
    return Assembler(sender).assemble(recipient, rendered, identity, unsubscribe, DATE)


@pytest.fixture(scope="module")
def message(sent):
    return message_from_bytes(sent, policy=policy.default)


@pytest.fixture(scope="module")
def html(message):
    return message.get_body(["html"]).get_content()


def test_the_text_part_reads_as_written(message):
    text = message.get_body(["plain"]).get_content().replace("\r\n", "\n")

    links = {f"link{n}": url(LinkKind.CLICK, n) for n in (1, 2, 3)}
    assert text == TEXT.format(
        **links, interest=url(LinkKind.PREFERENCES, 1), unsubscribe=url(LinkKind.UNSUBSCRIBE)
    )


def test_the_subject_and_the_recipient_are_readable(message):
    assert message["Subject"] == "Zoë, your picks for this week: Strawberries, organic, 16 oz"
    assert message["To"].addresses[0].display_name == "Zoë"
    assert message["To"].addresses[0].addr_spec == "zoe@example.com"


def test_the_address_stands_in_no_part_of_the_mail(sent, html):
    assert sent.count(b"zoe@example.com") == 1
    assert "zoe@example.com" not in html


def test_every_link_is_ours_or_the_template_s(html):
    links = {urlsplit(link).netloc for link in re.findall(r'(?:href|src)="([^"]*)"', html)}

    assert links == {"mail.shop.example", "shop.example"}


def test_no_template_syntax_is_left(sent, html):
    assert not re.search(r"\{[{%#]|[}%#]\}|jtag", html)


def test_the_markup_is_balanced_for_outlook_and_for_all_others(html):
    others = re.sub(r"<!--.*?-->", "", html, flags=re.DOTALL)
    outlook = re.sub(r"<!--\[if !mso\]>.*?<!\[endif\]-->", "", html, flags=re.DOTALL)
    outlook = re.sub(r"<!--\[if [^\]]*\]>|<!\[endif\]-->", "", outlook)

    for page in (others, outlook):
        Balance().feed(page)


class Balance(HTMLParser):
    """Fails at the first tag that closes another than the open one."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag in ("table", "tbody", "tr", "td", "div", "h1", "h2", "h3", "a", "span"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag in ("table", "tbody", "tr", "td", "div", "h1", "h2", "h3", "a", "span"):
            assert self.open.pop() == tag


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MEASURE = """<title>?</title><iframe width="{width}" height="2000" srcdoc="{page}"></iframe>
<script>
  const frame = document.querySelector("iframe");
  frame.onload = () => {{ document.title = frame.contentDocument.documentElement.scrollWidth; }};
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [320, 360, 600])
def test_the_mail_fits_the_width_of_a_screen(html, width, tmp_path):
    page = re.sub(r'src="[^"]*"', 'src=""', html).replace("&", "&amp;").replace('"', "&quot;")
    (tmp_path / "page.html").write_text(MEASURE.format(width=width, page=page), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"

    done = subprocess.run(
        [
            CHROMIUM,
            *flags,
            profile,
            "--virtual-time-budget=3000",
            "--dump-dom",
            str(tmp_path / "page.html"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert re.search(r"<title>(\d+)</title>", done.stdout)[1] == str(width)


@pytest.mark.skipif(shutil.which("spamassassin") is None, reason="no spamassassin on this machine")
def test_spamassassin_finds_nothing_to_say(sent, tmp_path):
    """Local rules only: no look-up leaves the machine."""
    done = subprocess.run(
        ["spamassassin", "--local", "--test-mode"],
        input=sent,
        capture_output=True,
        timeout=120,
        check=True,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )

    score = re.search(rb"Content analysis details:\s+\((-?[\d.]+) points", done.stdout)
    assert float(score[1]) < 0.5
