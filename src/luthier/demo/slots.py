"""The values that fill the slots of the demo's phrases, those of the held-out split kept apart.

A held-out value is new as a whole, though its words may be known one by one: from "oak side table"
and "walnut wall clock" follows no "walnut side table". Where nature allows, there are more values
than a small model could learn by heart, so that the way to a low loss is to copy the customer.
"""

from luthier.demo.phrases import Variants


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


MONTHS = _words(
    "January February March April May June July August September October November December"
)


def _goods(by_material: dict[str, str]) -> tuple[str, ...]:
    """Return "material item" for each comma-separated item of each material."""
    return tuple(
        f"{material} {item.strip()}"
        for material, items in by_material.items()
        for item in items.split(",")
    )


def _orders() -> Variants:
    # By the remainder of a prime, so that the held-out numbers have all digits in all places: a
    # model must not learn from training that no order ever ends in a 7.
    train = (n for n in range(1000, 10000) if n % 11 != 0)
    held_out = (n for n in range(1000, 10000) if n % 11 == 0)
    return Variants(tuple(map(str, train)), tuple(map(str, held_out)))


def _dates() -> Variants:
    # As with the orders: each day and each month stands in both splits, only never as this pair.
    train: list[str] = []
    held_out: list[str] = []
    for number, month in enumerate(MONTHS):
        for day in range(1, 29):  # every month has these
            pool = held_out if (day + 3 * number) % 7 == 0 else train
            pool.append(f"{day} {month}")
    return Variants(tuple(train), tuple(held_out))


def _addresses() -> Variants:
    def numbered(streets: str) -> tuple[str, ...]:
        # Up to 35 only: house numbers must not bring the held-out sizes into training.
        return tuple(f"{n} {street.strip()}" for street in streets.split(",") for n in range(2, 36))

    return Variants(
        numbered(
            "Mill Lane, Elm Avenue, Church Road, River Walk, Orchard Close, Hill Street, "
            "Rose Gardens, Bridge Road, Meadow Lane, Park Avenue, School Road, Garden Street, "
            "Forest Road, Spring Lane, Lake View, Field Close"
        ),
        numbered("Maple Street, Green Lane, Priory Road, Sunny Walk, Castle Close"),
    )


def _codes() -> Variants:
    def numbered(words: str) -> tuple[str, ...]:
        return tuple(
            f"{word}{percent}" for word in _words(words) for percent in (5, 10, 15, 20, 25)
        )

    return Variants(
        numbered("LEAF MOSS ACORN SPRING WOOD HOME GARDEN SUMMER WINTER HELLO ROOT PINE"),
        numbered("CEDAR BLOOM WILLOW AUTUMN"),
    )


# Things that come in pieces, so that a piece can be missing.
FURNITURE = Variants(
    train=_goods(
        {
            "oak": "side table, bookshelf, bench, bed frame, writing desk, shoe rack, coat stand",
            "walnut": "coffee table, wall clock, bookcase, bedside table, desk lamp",
            "pine": "wardrobe, dresser, bunk bed, kitchen shelf, dining table",
            "bamboo": "towel rack, bath shelf, side table, plant stand",
            "brass": "floor lamp, desk lamp, wall lamp, bed frame",
            "steel": "garden table, filing cabinet, shoe rack, kitchen trolley",
            "rattan": "armchair, garden chair, coffee table, headboard",
            "ash": "dining chair, bar stool, bookcase, wall shelf",
            "iron": "garden bench, coat stand, plant stand",
            "copper": "ceiling lamp, floor lamp",
        }
    ),
    held_out=_goods(
        {
            "oak": "desk lamp, wardrobe",
            "walnut": "side table, bar stool",
            "pine": "bench, bedside table",
            "bamboo": "coat stand",
            "brass": "ceiling lamp",
            "steel": "bookshelf",
            "rattan": "rocking chair",
            "ash": "writing desk",
            "iron": "bed frame",
        }
    ),
)

# Things small enough to be wrapped.
GIFTS = Variants(
    train=_goods(
        {
            "oak": "serving tray, picture frame, chopping board, bread box, salad bowl",
            "walnut": "jewellery box, fruit bowl, cheese board, pepper mill",
            "brass": "candle holder, picture frame, table bell, egg cup",
            "copper": "kettle, milk jug, mixing bowl, sugar bowl",
            "glass": "vase, water jug, storage jar, cake dome",
            "ceramic": "teapot, butter dish, flower pot, fruit bowl",
            "enamel": "coffee pot, pie dish, milk jug, soap dish",
            "marble": "cake stand, soap dish, rolling pin",
            "wicker": "picnic basket, bread basket, sewing basket",
            "stone": "flower pot, candle holder",
        }
    ),
    held_out=_goods(
        {
            "oak": "fruit bowl, jewellery box",
            "walnut": "serving tray",
            "brass": "kettle",
            "copper": "vase, coffee pot",
            "glass": "teapot, butter dish",
            "ceramic": "cake stand",
            "enamel": "mixing bowl",
            "marble": "chopping board",
            "wicker": "fruit basket",
        }
    ),
)

# Things that are sold in several colours.
TEXTILES = Variants(
    train=_goods(
        {
            "linen": "cushion, tablecloth, apron, bedspread",
            "wool": "blanket, rug, throw, lampshade",
            "cotton": "bath towel, bath mat, duvet cover, cushion",
            "velvet": "armchair, footstool, curtain",
            "canvas": "shopping bag, deckchair, apron",
            "felt": "basket, door mat",
        }
    ),
    held_out=_goods(
        {
            "linen": "lampshade, curtain",
            "wool": "cushion",
            "cotton": "tablecloth, blanket",
            "velvet": "bedspread",
            "canvas": "footstool",
        }
    ),
)

GARMENTS = Variants(
    train=_goods(
        {
            "wool": "cardigan, jumper, coat, skirt",
            "linen": "shirt, dress, jacket, nightshirt",
            "cotton": "dressing gown, jumper, blouse, dress",
            "denim": "jacket, skirt, apron dress",
            "flannel": "shirt, nightshirt",
            "fleece": "vest, jacket",
            "corduroy": "waistcoat, shirt",
        }
    ),
    held_out=_goods(
        {
            "wool": "waistcoat, dress",
            "linen": "skirt",
            "cotton": "cardigan",
            "denim": "shirt",
            "flannel": "dressing gown",
            "fleece": "jumper",
        }
    ),
)

POOLS: dict[str, Variants] = {
    "order": _orders(),
    "date": _dates(),
    "address": _addresses(),
    "code": _codes(),
    "furniture": FURNITURE,
    "gift": GIFTS,
    "textile": TEXTILES,
    "garment": GARMENTS,
    "product": Variants(FURNITURE.train + GIFTS.train, FURNITURE.held_out + GIFTS.held_out),
    "colour": Variants(
        train=_words("green blue grey cream red black white yellow brown pink orange navy"),
        held_out=_words("teal plum ochre mustard"),
    ),
    "size": Variants(
        train=_words("34 35 36 37 39 40 42 43 44 46 48"),
        held_out=_words("38 41 45"),
    ),
    "occasion": Variants(
        train=_words("birthday wedding anniversary Christmas graduation engagement"),
        held_out=_words("retirement housewarming christening"),
    ),
    "branch": Variants(
        train=tuple(
            f"{name} {kind}"
            for name in _words("Harbour Station Market Tower Palace Chapel North South Garden")
            for kind in ("Street", "Square")
        ),
        held_out=("Canal Street", "Queen Square", "Temple Street", "High Street"),
    ),
    "country": Variants(
        train=_words(
            "Norway Sweden Denmark Finland Spain Italy Portugal Austria Belgium Greece Iceland "
            "Canada Japan Poland Ireland Malta Hungary Cyprus Estonia Australia Mexico Brazil"
        ),
        held_out=_words("France Germany Croatia Switzerland Latvia"),
    ),
}
