"""The linter says what would hurt a mail, and nothing about one that is fine."""

import json
import re

import pytest
from click.testing import CliRunner

from reco.cli import main
from render.colours import colour, contrast_of
from render.compile import compile_template
from render.lint import lint
from render.support import _STYLES

FOOTER = '<a href="{{ unsubscribe_url }}">Unsubscribe</a> {{ postal_address }}'
GOOD = '<h1 style="font-size:20px">Hi</h1><p style="font-size:16px">Text</p>' + FOOTER


@pytest.fixture
def rules(tmp_path):
    """Rules that a template with this text column breaks, as {rule: level}."""

    def run(
        body=GOOD,
        lang=' lang="en"',
        title="Title",
        subject="Hi",
        text="{{ unsubscribe_url }} {{ postal_address }}",
    ):
        (tmp_path / "template.mjml").write_text(
            f"<mjml{lang}><mj-head><mj-title>{title}</mj-title></mj-head><mj-body><mj-section>"
            f'<mj-column><mj-text font-size="16px">{body}</mj-text></mj-column>'
            "</mj-section></mj-body></mjml>"
        )
        (tmp_path / "subject.jinja").write_text(subject)
        (tmp_path / "preheader.jinja").write_text("")
        (tmp_path / "text.jinja").write_text(text)
        return {finding.rule: finding.level for finding in lint(compile_template(tmp_path))}

    return run


def test_the_stock_template_is_clean():
    assert lint(compile_template("digest")) == []


def test_a_plain_good_template_is_clean(rules):
    assert rules() == {}


@pytest.mark.parametrize(
    ("added", "rule", "level"),
    [
        ('<img src="https://x.example/a.png">', "alt", "error"),
        ('<img src="http://x.example/a.png" alt="">', "https", "warning"),
        ('<a href="http://x.example/">a</a>', "https", "warning"),
        ('<a href="">a</a>', "link", "error"),
        ('<a href="shop/a">a</a>', "link", "error"),
        ('<a href="htp://x.example/">a</a>', "link", "error"),
        ("<a href=\"{{ 'javascript:x' }}\">a</a>", "link", "error"),
        ("<table><tr><td>a</td></tr></table>", "role", "warning"),
        ("<form></form>", "tag", "error"),
        ('<p style="color:#999999">pale</p>', "contrast", "warning"),
        (
            '<div style="background:#222"><p style="color:#333">dark</p></div>',
            "contrast",
            "warning",
        ),
        ('<p style="font-size:11px">small</p>', "font-size", "warning"),
        ("<h1>again</h1>", "heading", "warning"),
        ('</mj-text><mj-text algin="left" font-size="16px">a', "attribute", "warning"),
        ("{% for i in range(9500) %}word word {% endfor %}", "size", "warning"),
        ("{% for i in range(11000) %}word word {% endfor %}", "size", "error"),
        (
            "{% if user.segment == 'rare' %}<img src='https://x.example/'>{% endif %}",
            "alt",
            "error",
        ),
    ],
)
def test_each_fault_is_found(rules, added, rule, level):
    assert rules(GOOD + added) == {rule: level}


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"body": GOOD.replace("{{ unsubscribe_url }}", "https://x.example")}, "unsubscribe"),
        ({"body": GOOD.replace("{{ postal_address }}", "")}, "postal-address"),
        ({"text": "{{ unsubscribe_url }}"}, "postal-address"),
        ({"text": "{{ postal_address }}"}, "unsubscribe"),
        ({"lang": ""}, "lang"),
        ({"title": ""}, "title"),
        ({"subject": " "}, "subject"),
        ({"subject": "long " * 20}, "subject"),
    ],
)
def test_what_is_missing_is_named(rules, changed, rule):
    assert set(rules(**changed)) == {rule}


def test_contrast_is_that_of_the_standard():
    assert contrast_of("#000000", "#ffffff") == pytest.approx(21)
    assert contrast_of("#ffffff", "#ffffff") == pytest.approx(1)
    assert contrast_of("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("#1d6b41", "#1d6b41"),
        ("#ABC", "#aabbcc"),
        ("#abcf", "#aabbcc"),
        ("#aabbcc80", ""),
        ("rgb(255, 0, 16)", "#ff0010"),
        ("rgb(100% 0% 0%)", "#ff0000"),
        ("rgba(0,0,0,.5)", ""),
        ("rgb(0 0 0 / 100%)", "#000000"),
        ("Red", "#ff0000"),
        ("1px solid rebeccapurple", "#663399"),
        ("transparent", ""),
        ("inherit", ""),
        ("url(red.png)", ""),
        ("rgb(red)", ""),
    ],
)
def test_colours_are_read_in_every_notation(value, seen):
    assert seen == colour(value)


@pytest.mark.parametrize(
    ("added", "rule"),
    [
        ('<p style="color:silver">pale</p>', "contrast"),
        ('<p style="color:rgb(200,200,200)">pale</p>', "contrast"),
        ('<div style="position:absolute">a</div>', "support"),
        ('<div style="display: flex">a</div>', "support"),
        ('<div style="color: var(--ink)">a</div>', "support"),
        ('<img src="https://x.example/a.svg" alt="">', "support"),
        ("<svg></svg>", "support"),
        ("{% if user.segment == 'a' %}x{% elif user.segment == 'a' %}y{% endif %}", "unreachable"),
        ("{% if false %}x{% endif %}", "unreachable"),
    ],
)
def test_what_some_readers_would_not_see_is_said(rules, added, rule):
    assert {rule: "warning"} == rules(GOOD + added)


def test_a_branch_for_a_segment_that_the_campaign_lacks_is_said():
    compiled = compile_template("digest")

    assert [] == lint(compiled, {"buyer", "educator", "other"})
    found = lint(compiled, {"buyer", "other"})
    assert {"unreachable"} == {finding.rule for finding in found}
    assert all("'educator'" in finding.message for finding in found)
    assert re.search(r"template.mjml:\d+: nobody is in", found[0].message)


def test_the_command_says_what_is_wrong_and_fails_on_errors(tmp_path):
    (tmp_path / "template.mjml").write_text(
        "<mjml><mj-body><mj-section><mj-column><mj-text>Hi</mj-text></mj-column></mj-section>"
        "</mj-body></mjml>"
    )
    for name in ("subject", "preheader", "text"):
        (tmp_path / f"{name}.jinja").write_text("Hi")
    bad = CliRunner().invoke(main, ["template", "lint", str(tmp_path), "--json"])
    good = CliRunner().invoke(main, ["template", "lint", "digest", "--json"])

    assert (1, 0) == (bad.exit_code, good.exit_code)
    assert any("unsubscribe_url" in error for error in json.loads(bad.stdout)["errors"])
    assert {"errors": [], "warnings": []} == json.loads(good.stdout)


def test_the_table_of_support_agrees_with_caniemail(corpora):
    features = json.loads((corpora / "caniemail" / "features.json").read_text())
    stats = {feature["slug"]: feature["stats"] for feature in features}

    def shown(slug: str, client: str, platform: str) -> str:
        versions = stats[slug][client][platform]
        return versions[sorted(versions)[-1]][0]

    for name, pattern, who in _STYLES:
        slug = f"css-{name}"
        if name == "display":
            slug += "-flex" if "flex" in pattern else "-grid"
        if name == "inset" or slug in stats:
            assert "n" == shown(slug, "outlook", "windows"), name
            assert not who.startswith("Gmail") or shown(slug, "gmail", "desktop-webmail") in "na"
