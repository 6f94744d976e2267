"""Groceries and the basket: the objects of LIBERO-OBJECT, and some of the other suites' objects.

Resting heights and widths between the fingers are those of LIBERO's collision boxes. The upright axis is z for flat
boxes, and y for most standing objects.
"""

from dataclasses import replace

from m2distill_sim.builtin.mjcf import ALONG_Y, Part, box_site, geoms, object_xml

WHITE, SILVER, ORANGE = (0.95, 0.95, 0.95), (0.70, 0.72, 0.75), (0.98, 0.55, 0.05)


def _can(body, band):
    """Return a food can upright along y: 31 mm radius, 76 mm high, with a label band and a metal lid."""
    centre = -0.0035  # z offset of LIBERO's collision can
    return (
        Part((0.031, 0.0381), body, (0, -0.0005, centre), ALONG_Y),
        Part((0.0316, 0.012), band, (0, -0.004, centre), ALONG_Y, solid=False),
        Part((0.0285, 0.0012), SILVER, (0, 0.0382, centre), ALONG_Y, solid=False),
    )


def _box(half, body, band):
    """Return a flat packet lying along z, with a band across it."""
    stripe = (half[0] * 0.35, half[1] * 1.01, half[2] * 1.02)
    return (Part(half, body), Part(stripe, band, solid=False))


def _bottle(shoulder, neck, base_half, base_y, body, label, cap):
    """Return a bottle upright along y: body, shoulder and cap. `shoulder` and `neck` are (half extents, y)."""
    band = (base_half[0] * 1.02, base_half[1] * 0.4, base_half[2] * 1.02)
    return (
        Part(base_half, body, (0, base_y, 0)),
        Part(shoulder[0], body, (0, shoulder[1], 0)),
        Part(neck[0], cap, (0, neck[1], 0)),
        Part(band, label, (0, base_y, 0), solid=False),
    )


def _along_z(parts):
    """Return the same boxes upright along z instead of y."""
    return tuple(replace(part, half=_swap(part.half), pos=_swap(part.pos)) for part in parts)


def _swap(xyz):
    return (xyz[0], xyz[2], xyz[1])


def _carton(body, top):
    """Return a 52 mm square carton upright along y, 131 mm high with its gable."""
    return (
        Part((0.0263, 0.0548, 0.0263), body, (0, -0.015, 0)),
        Part((0.0263, 0.0080, 0.0150), top, (0, 0.0476, 0)),
        Part((0.0263, 0.0040, 0.0035), top, (0, 0.0590, 0)),
    )


# parts, and the sites (bottom z, top z, horizontal radius) with which LIBERO places the object
GROCERIES = {
    "alphabet_soup": (_can((0.08, 0.18, 0.75), (0.98, 0.85, 0.15)), (-0.04, 0.04, 0.025)),
    "tomato_sauce": (_can((0.80, 0.08, 0.06), WHITE), (-0.06, 0.04, 0.025)),
    "cream_cheese": (_box((0.0406, 0.0213, 0.0089), (0.20, 0.80, 0.95), WHITE), (-0.025, 0.025, 0.03)),
    "butter": (_box((0.0381, 0.0198, 0.0087), (0.98, 0.85, 0.10), (0.98, 0.60, 0.05)), (-0.02, 0.02, 0.02)),
    "cookies": (_box((0.0310, 0.0413, 0.0094), (0.55, 0.10, 0.08), (0.75, 0.55, 0.25)), (-0.06, 0.04, 0.025)),
    "chocolate_pudding": (_box((0.0401, 0.0232, 0.0137), (0.35, 0.17, 0.06), (0.95, 0.50, 0.65)), (-0.06, 0.04, 0.025)),
    "salad_dressing": (
        _bottle(
            ((0.0180, 0.0190, 0.0150), 0.0090),
            ((0.0128, 0.0224, 0.0128), 0.0504),
            (0.0264, 0.0314, 0.0173),
            -0.0414,
            (0.10, 0.55, 0.12),
            WHITE,
            WHITE,
        ),
        (-0.06, 0.04, 0.025),
    ),
    "bbq_sauce": (
        _along_z(
            _bottle(
                ((0.0181, 0.0146, 0.0143), 0.0123),
                ((0.0143, 0.0134, 0.0140), 0.0391),
                (0.0235, 0.0268, 0.0145),
                -0.0278,
                (0.15, 0.06, 0.03),
                ORANGE,
                ORANGE,
            )
        ),
        (-0.06, 0.06, 0.015),
    ),
    "ketchup": (
        _bottle(
            ((0.0213, 0.0213, 0.0183), 0.0150),
            ((0.0141, 0.0185, 0.0141), 0.0547),
            (0.0281, 0.0331, 0.0170),
            -0.0394,
            (0.75, 0.02, 0.25),
            WHITE,
            WHITE,
        ),
        (-0.06, 0.04, 0.025),
    ),
    "milk": (_carton(WHITE, (0.25, 0.45, 0.90)), (-0.06, 0.04, 0.03)),
    "orange_juice": (_carton((0.98, 0.50, 0.05), (0.30, 0.65, 0.15)), (-0.06, 0.04, 0.025)),
}

WICKER, WICKER_DARK = (0.72, 0.52, 0.30), (0.42, 0.28, 0.14)
BASKET = (
    Part((0.0766, 0.0724, 0.0089), WICKER_DARK, (0.0025, 0, 0.0131)),
    Part((0.0067, 0.0724, 0.0637), WICKER, (-0.0737, 0, 0.0800)),
    Part((0.0067, 0.0724, 0.0637), WICKER, (0.0757, 0, 0.0800)),
    Part((0.0724, 0.0067, 0.0637), WICKER, (0.0005, -0.0687, 0.0818)),
    Part((0.0724, 0.0067, 0.0637), WICKER, (0.0000, 0.0691, 0.0818)),
)
# LIBERO's; the goal predicate reads it
BASKET_REGION = box_site("contain_region", (0, 0, 0.07185), (0.06108, 0.06108, 0.06949), (0, 0, 0, 1))


def files() -> dict[str, str]:
    """Return path in an assets folder -> MJCF."""
    basket = object_xml("basket", BASKET_REGION + geoms(BASKET), (-0.06, 0.04, 0.025))
    groceries = {
        f"stable_hope_objects/{name}/{name}.xml": object_xml(name, geoms(parts), sites)
        for name, (parts, sites) in GROCERIES.items()
    }
    return {"stable_scanned_objects/basket/basket.xml": basket, **groceries}
