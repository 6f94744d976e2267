"""Built-in assets: LIBERO's objects, furniture and scenes as primitives in flat colours, without a download.

    furniture.py  cabinets, stove, microwave, wine rack
    groceries.py  cans, packets, bottles, cartons, basket
    mjcf.py       a coloured primitive, a ring of boxes, an object's MJCF
    scenes.py     floor, tables and walls
    tableware.py  crockery, mugs, pots, wine bottle, book, desk caddy

LIBERO's classes load these files, because folders, bodies, joints, sites and regions have LIBERO's names and sizes are
those of its collision boxes. Task files, initial states and goal predicates therefore apply unchanged. The few polygons
without texture, reflection or shadow reduce the cost of an image by an order of magnitude on a software renderer.
"""

from m2distill_policy.suites import BUILTIN_SUITES as SUITES
from m2distill_sim.builtin import furniture, groceries, scenes, tableware

__all__ = ["SUITES", "builtin_files"]


def builtin_files() -> dict[str, bytes]:
    """Return the set: path inside an assets folder in LIBERO's layout -> content."""
    files = {**groceries.files(), **tableware.files(), **furniture.files(), **scenes.files()}
    return {name: content.encode() if isinstance(content, str) else content for name, content in files.items()}
