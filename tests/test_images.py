"""Pictures of categories: small, real PNGs, the same bytes each time."""

from io import BytesIO

import pytest
from PIL import Image

from render.images import draw_all, draw_category, image_name, inline_images

CATEGORIES = [
    "PRODUCE",
    "FROZEN GROCERY",
    "MISCELLANEOUS",
    "",
    "果物",
    "A" * 200,
    "<script>",
    "TRAVEL & LEISURE",
]


@pytest.mark.parametrize("category", CATEGORIES)
def test_each_category_has_a_small_png(category):
    data = draw_category(category)

    image = Image.open(BytesIO(data))
    assert image.format == "PNG"
    assert image.size == (400, 300)
    assert len(data) < 12_000
    assert len(image.convert("RGB").getcolors(65536)) > 2


def test_a_picture_is_the_same_each_time_and_differs_between_categories():
    assert draw_category("PRODUCE") == draw_category("PRODUCE")
    assert draw_category("PRODUCE") != draw_category("MEAT")


def test_file_names_are_distinct_and_safe_in_a_url():
    names = [image_name(category) for category in [*CATEGORIES, "produce", "a/b", "a b", "../x"]]

    assert len(set(names)) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.") for name in names)
    assert not any(".." in name for name in names)


def test_all_are_drawn_once_into_a_directory(tmp_path):
    names = draw_all(["PRODUCE", "MEAT", "PRODUCE"], tmp_path / "assets")
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "assets").iterdir()}

    draw_all(["PRODUCE", "MEAT"], tmp_path / "assets")

    assert set(names.values()) == set(written)
    assert written == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "assets").iterdir()}


def test_previews_carry_their_images_inside():
    html = "<img src=\"https://shop.example/assets/a.png\"><img src='https://x.example/b.png'>"

    inlined = inline_images(
        html, lambda url: "data:image/png;base64,QQ==" if "/assets/" in url else None
    )

    assert inlined == "<img src=\"data:image/png;base64,QQ==\"><img src='https://x.example/b.png'>"
