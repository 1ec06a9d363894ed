"""Small drawings of a shop's departments, in one ink, from circles, boxes and lines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from PIL import ImageDraw

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Canvas:
    """A square to draw in: coordinates -1..1 around the centre, y downwards."""

    pen: ImageDraw.ImageDraw
    ink: str
    ground: str
    centre: Point
    size: float

    def _at(self, *points: Point) -> list[Point]:
        (x, y), half = self.centre, self.size / 2
        return [(x + px * half, y + py * half) for px, py in points]

    def oval(self, left_top: Point, right_bottom: Point, *, hole: bool = False) -> None:
        """A filled oval; a hole shows the ground."""
        self.pen.ellipse(self._at(left_top, right_bottom), fill=self.ground if hole else self.ink)

    def box(
        self, left_top: Point, right_bottom: Point, *, round_by: float = 0.08, hole: bool = False
    ) -> None:
        """A filled box with round corners."""
        self.pen.rounded_rectangle(
            self._at(left_top, right_bottom),
            radius=round_by * self.size / 2,
            fill=self.ground if hole else self.ink,
        )

    def shape(self, *points: Point, hole: bool = False) -> None:
        """A filled polygon."""
        self.pen.polygon(self._at(*points), fill=self.ground if hole else self.ink)

    def line(self, *points: Point, width: float = 0.1, hole: bool = False) -> None:
        """A line with round ends."""
        places = self._at(*points)
        thick = round(width * self.size / 2)
        fill = self.ground if hole else self.ink
        self.pen.line(places, fill=fill, width=thick, joint="curve")
        for x, y in (places[0], places[-1]):
            r = thick / 2
            self.pen.ellipse([(x - r, y - r), (x + r, y + r)], fill=fill)


def apple(to: Canvas) -> None:
    """Fruit and vegetables."""
    to.oval((-0.75, -0.45), (0.15, 0.75))
    to.oval((-0.15, -0.45), (0.75, 0.75))
    to.box((-0.4, 0.1), (0.4, 0.72), round_by=0.3)
    to.line((0, -0.35), (0.05, -0.65), (0.15, -0.8), width=0.1)
    to.oval((0.15, -0.85), (0.65, -0.55))


def loaf(to: Canvas) -> None:
    """Bread and pastry."""
    to.oval((-0.9, -0.5), (0.9, 0.5))
    to.box((-0.8, -0.05), (0.8, 0.65), round_by=0.15)
    for x in (-0.45, 0.0, 0.45):
        to.line((x - 0.1, -0.2), (x + 0.1, 0.15), width=0.1, hole=True)


def ham(to: Canvas) -> None:
    """Meat and deli."""
    to.oval((-0.85, -0.7), (0.5, 0.55))
    to.line((0.2, 0.25), (0.75, 0.7), width=0.22)
    to.oval((0.6, 0.4), (0.9, 0.7))
    to.oval((0.5, 0.6), (0.8, 0.9))
    to.oval((-0.55, -0.4), (-0.05, 0.1), hole=True)
    to.oval((-0.42, -0.27), (-0.18, -0.03))


def fish(to: Canvas) -> None:
    """Seafood."""
    to.oval((-0.85, -0.42), (0.5, 0.42))
    to.shape((0.3, 0), (0.9, -0.45), (0.78, 0), (0.9, 0.45))
    to.oval((-0.6, -0.17), (-0.44, -0.01), hole=True)
    to.line((-0.22, -0.22), (-0.15, 0), (-0.22, 0.22), width=0.06, hole=True)


def bottle(to: Canvas) -> None:
    """Drinks and spirits."""
    to.box((-0.13, -0.95), (0.13, -0.3), round_by=0.05)
    to.oval((-0.36, -0.5), (0.36, 0.1))
    to.box((-0.36, -0.2), (0.36, 0.9), round_by=0.1)
    to.box((-0.24, 0.1), (0.24, 0.55), round_by=0.04, hole=True)


def carton(to: Canvas) -> None:
    """Milk and dairy."""
    to.shape((-0.45, -0.35), (-0.2, -0.75), (0.2, -0.75), (0.45, -0.35))
    to.box((-0.22, -0.92), (0.22, -0.7), round_by=0.04)
    to.box((-0.45, -0.35), (0.45, 0.9), round_by=0.06)
    to.line((-0.45, -0.33), (0.45, -0.33), width=0.05, hole=True)
    to.oval((-0.22, 0.08), (0.22, 0.52), hole=True)


def snowflake(to: Canvas) -> None:
    """Frozen food."""
    for dx, dy in ((0, 0.85), (0.736, 0.425), (0.736, -0.425)):
        to.line((-dx, -dy), (dx, dy), width=0.1)
        for side in (-1, 1):
            x, y = dx * 0.62 * side, dy * 0.62 * side
            for turn in (-1, 1):
                arm = (
                    x + side * (dx * 0.2 + turn * dy * 0.26),
                    y + side * (dy * 0.2 - turn * dx * 0.26),
                )
                to.line((x, y), arm, width=0.09)


def flower(to: Canvas) -> None:
    """Flowers and garden."""
    to.line((0, 0.1), (0, 0.95), width=0.09)
    to.oval((0.02, 0.5), (0.5, 0.75))
    for x, y in ((0, -0.42), (0.38, -0.15), (0.24, 0.3), (-0.24, 0.3), (-0.38, -0.15)):
        to.oval((x - 0.27, y - 0.35), (x + 0.27, y + 0.19))
    to.oval((-0.2, -0.28), (0.2, 0.12), hole=True)


def tube(to: Canvas) -> None:
    """Cosmetics and personal care."""
    to.box((-0.2, -0.95), (0.2, -0.65), round_by=0.05)
    to.box((-0.1, -0.7), (0.1, -0.45), round_by=0.02)
    to.box((-0.42, -0.5), (0.42, 0.9), round_by=0.18)
    to.oval((-0.2, 0.0), (0.2, 0.4), hole=True)


def pill(to: Canvas) -> None:
    """Health and nutrition."""
    to.line((-0.5, 0.5), (0.5, -0.5), width=0.62)
    to.line((-0.3, -0.3), (0.3, 0.3), width=0.08, hole=True)


def basket(to: Canvas) -> None:
    """Groceries."""
    to.line((-0.45, -0.2), (-0.15, -0.8), width=0.1)
    to.line((0.45, -0.2), (0.15, -0.8), width=0.1)
    to.box((-0.95, -0.25), (0.95, 0.02), round_by=0.08)
    to.shape((-0.8, 0.1), (0.8, 0.1), (0.62, 0.8), (-0.62, 0.8))
    for x in (-0.35, 0.0, 0.35):
        to.line((x, 0.28), (x * 0.9, 0.6), width=0.1, hole=True)


def bowl(to: Canvas) -> None:
    """Salads and ready meals."""
    to.oval((-0.75, -0.75), (0.75, 0.75))
    to.box((-1, -1), (1, 0), round_by=0, hole=True)
    to.box((-0.9, -0.1), (0.9, 0.08), round_by=0.08)
    to.box((-0.3, 0.68), (0.3, 0.82), round_by=0.05)
    for x in (-0.35, 0.0, 0.35):
        to.line((x, -0.3), (x + 0.08, -0.48), (x, -0.66), width=0.08)


# Words of a category's name, and what they look like; the first that fits.
DRAWINGS: Final[Mapping[str, Callable[[Canvas], None]]] = {
    "frozen ice": snowflake,
    "produce fruit fruits vegetable vegetables apples bananas berries grapes citrus": apple,
    "pastry bakery bread rolls cakes cookies baked": loaf,
    "seafood fish shrimp": fish,
    "meat beef pork chicken deli poultry sausage ham lunchmeat bacon pckgd": ham,
    "milk dairy cheese yogurt yoghurt eggs butter margarines": carton,
    "spirits wine beer drinks beverage beverages liquor juice water soft": bottle,
    "floral flowers garden plants": flower,
    "cosmetics beauty hair makeup drug soap hygiene care": tube,
    "nutrition health vitamins pharmacy medicine": pill,
    "salad restaurant meals dinner soup chef": bowl,
    "grocery groceries food pantry": basket,
}
