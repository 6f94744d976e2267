"""The built-in assets: LIBERO's objects, furniture and rooms as primitives in flat colours, nothing to download.

LIBERO's classes load these files unchanged, because folders, bodies, joints, sites and regions are LIBERO's, and sizes
are those of its collision boxes; so task files, initial states and goal predicates apply as they are. Everything is
drawn by few polygons without texture, reflection or shadow, which makes an image an order of magnitude cheaper on a
software renderer.

Map:
    mjcf.py       a coloured primitive, a ring of boxes, an object's MJCF
    groceries.py  cans, packets, bottles, cartons, basket
    tableware.py  crockery, mugs, pots, wine bottle, book, desk caddy
    furniture.py  cabinets, stove, microwave, wine rack
    scenes.py     floor, tables and walls
"""

from m2distill_sim.builtin import furniture, groceries, scenes, tableware

SUITES = ("libero_object", "libero_goal", "libero_spatial", "libero_10")  # what the set has every object of


def builtin_files() -> dict[str, bytes]:
    """The whole set: path inside an assets folder in LIBERO's layout -> content."""
    files = {**groceries.files(), **tableware.files(), **furniture.files(), **scenes.files()}
    return {name: content.encode() if isinstance(content, str) else content for name, content in files.items()}
