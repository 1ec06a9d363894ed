"""The linter says what would hurt a mail, and nothing about one that is fine."""

import pytest

from render.compile import compile_template
from render.lint import contrast_of, lint

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
