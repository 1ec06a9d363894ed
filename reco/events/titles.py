"""Readable titles from the texts of a till: "FRZN SS PREMIUM ENTREES/DNRS/N" is none for a mail."""

import re
from typing import Final

FIELD_WIDTH: Final = 30  # of the till; a text of this length was cut, its last word with it
_ABBREVIATIONS: Final = """
accessiores=Accessories anti-acids=Antacids appl=Apple appls=Apples asst=Assorted bkd=Baked
bkfst=Breakfast bkry=Bakery bnls=Boneless brd=Bread brkfst=Breakfast btl=Bottle btld=Bottled
btls=Bottles bttr=Butter can=Cans carb=Carbonated catfd=Cat~Food cerl=Cereal chix=Chicken
chkn=Chicken choc=Chocolate chocolat=Chocolate chococlate=Chocolate chs=Cheese ckn=Chicken
cntrl=Control condnsd=Condensed dnr=Dinner dnrs=Dinners dps=Dips dress=Dressing drnk=Drink
drnks=Drinks dsh=Dish entr=Entree entrs=Entrees fd=Food fem=Feminine flvr=Flavored frd=Fried
froz=Frozen frsh=Fresh frt=Fruit frz=Frozen frzn=Frozen gds=Goods grnd=Ground holdiay=Holiday
hygn=Hygiene incl=Including iws=Wrapped jce=Juice liqs=Liquids lqd=Liquid misc=Assorted mlk=Milk
mrgrn=Margarine nat=Natural natl=National nonchocol=Non-Chocolate orng=Orange pickld=Pickled
pkg=Packaged pkgd=Packaged pnch=Punch port=Portion prem=Premium prep=Prepared prepck=Prepacked
presc=Prescription prod=Products prods=Products prpck=Prepacked refrgratd=Refrigerated
refrig=Refrigerated refrigeratd=Refrigerated rfrg=Refrigerated rst=Roast rts=Ready-to-Serve
sal=Salad sce=Sauce seafd=Seafood sft=Soft sgl=Single sherbts=Sherbets shldr=Shoulder shlf=Shelf
slcd=Sliced snk=Snack sngl=Single spcl=Special sply=Supplies spred=Spread srv=Serve
ss=Single-Serve stk=Steak strwb=Strawberry subs=Substitutes sup=Super supls=Supplies sw=Sweet
swt=Sweet tom=Tomato trky=Turkey veg=Vegetable veget=Vegetable vegtabl=Vegetable whl=Whole
wht=White yogrt=Yogurt beeralemalt=Beer,~Ale~&~Malt saucessalsapicante=Sauces~&~Salsa
saucessalsapicantee=Sauces~&~Salsa
"""
WORDS: Final = dict(pair.split("=") for pair in _ABBREVIATIONS.split())
SMALL: Final = frozenset(("and", "for", "in", "not", "of", "on", "or", "the", "to", "with"))
# Words that say nothing at the end of a title: it was cut there, or they mean all the rest.
WEAK_ENDS: Final = SMALL | {"&", "all", "etc", "including", "misc", "only", "other", "under", "up"}
UNITS: Final = {"L": "L", "GA": "gal", "DZ": "dozen"}  # any other is its lower case


def title_of(kind: str | None, brand: str | None, size: str | None, otherwise: str) -> str:
    """Title of a product: "Store Brand Shredded Cheese, 16 oz"; `otherwise` without a kind."""
    name = _readable(kind) if kind else ""
    if not name:
        return otherwise
    if brand == "Private":
        name = f"Store Brand {name}"
    amount = size_of(size) if size else ""
    return f"{name}, {amount}" if amount else name


def size_of(size: str) -> str:
    """Size of a package: ".24 OZ" is 0.24 oz, "6 PK/ 12 OZ" is 6 pk / 12 oz.

    Empty for one without a number, and for the article numbers that some carry there.
    """
    text = re.sub(r"\([^)]*\)|^[^\d.]+", "", size)
    if not re.search(r"\d", text) or re.search(r"\d{5}", text):
        return ""
    text = re.sub(r"(?<!\d)\.(\d)", r"0.\1", text)
    text = re.sub(r"\s*/\s*", " / ", text)
    text = re.sub(r"[A-Z]+", lambda m: UNITS.get(m[0], m[0].lower()), text)
    return " ".join(text.split())


def _readable(text: str) -> str:
    if len(text) >= FIELD_WIDTH:
        text = re.sub(r"(?<=\w)[\s/&(:-]+[^\s/&(:-]*$", "", text)
    text = re.sub(r"\([^)]*\)", " ", text)  # asides
    text = re.sub(r"\(.*$", " ", text)  # one that was cut
    text = re.sub(r"\bW/\s*", "WITH ", text).replace(".", " ")
    text = re.sub(r"\s*[:;]\s*|\s+-\s*|\s*-\s+", ", ", text)
    text = re.sub(r"\s*[/&+]\s*", " & ", text)
    parts = [_phrase(part) for part in text.split(",")]
    seen: dict[str, str] = {}
    for part in parts:
        if part:
            seen.setdefault(part.lower(), part)
    return ", ".join(seen.values())


def _phrase(text: str) -> str:
    words: list[str] = []
    for word in text.split():
        plain = _word(word, first=not words)
        if plain and (not words or plain.lower() != words[-1].lower()):
            words.append(plain)
    while len(words) > 1 and words[-1].lower() in WEAK_ENDS:
        words.pop()
    return " ".join(words).removeprefix("& ")


def _word(word: str, *, first: bool) -> str:
    lower = word.lower()
    if lower in WORDS:
        return WORDS[lower].replace("~", " ")
    if lower in SMALL and not first:
        return lower
    return "-".join(part.capitalize() for part in lower.split("-") if part)
