"""Objects on the tables: crockery, mugs, pots, the wine bottle, book and desk caddy.

Each is a solid base and a wall of boxes, z up, with the radius, height and thickness of LIBERO's collision boxes. A
gripper therefore finds the rim at the same place as in LIBERO.
"""

import math
from dataclasses import replace

from m2distill_sim.builtin import mjcf
from m2distill_sim.builtin.mjcf import Part, box_site, octagon, quat_x, quat_y, ring

BLACK, WHITE, RED, PORCELAIN = (0.07, 0.07, 0.08), (0.92, 0.92, 0.91), (0.72, 0.10, 0.13), (0.75, 0.76, 0.78)
BOTTLE, CORK, LABEL = (0.03, 0.07, 0.04), (0.80, 0.62, 0.40), (0.57, 0.52, 0.44)
METAL, IRON, WOOD = (0.66, 0.66, 0.67), (0.13, 0.14, 0.14), (0.36, 0.29, 0.21)
MUG_RED, YELLOW = (0.62, 0.10, 0.10), (0.76, 0.70, 0.44)
SITES = (-0.06, 0.04, 0.025)

# 106 mm wide, 52 mm high
BOWL = (
    *octagon(0.0235, 0.0026, 0.0042, BLACK),
    *ring(12, 0.0335, 0.0098, (0.0015, 0.0099), math.radians(60), BLACK),
    *ring(16, 0.0471, 0.0337, (0.0015, 0.0188), math.radians(14.7), BLACK),
)

# 133 mm wide, the rim 14 mm above the table; drawn with more sides than it collides with
PLATE_RIM = (0.0483, 0.0070, (0.0025, 0.0191), math.radians(70.4), WHITE)
PLATE = (
    *octagon(0.0306, 0.0022, 0.0031, WHITE),
    *(replace(part, drawn=False) for part in ring(8, *PLATE_RIM)),
    *(replace(part, solid=False) for part in ring(16, *PLATE_RIM)),
    Part((0.0300, 0.0003), RED, (0, 0, 0.0054), solid=False),
)

# 84 mm wide, 43 mm high
RAMEKIN = (
    *octagon(0.0330, 0.0032, 0.0041, PORCELAIN),
    *ring(16, 0.0382, 0.0217, (0.0026, 0.0208), math.radians(8.6), PORCELAIN),
)

# 158 mm high; the belly 39 mm, the neck 14 mm wide
WINE_BOTTLE = (
    Part((0.0150, 0.0150, 0.0362), BOTTLE, (0, 0, 0.0373), drawn=False),
    *ring(8, 0.0178, 0.0333, (0.0019, 0.0298), 0.0, BOTTLE),
    Part((0.0118, 0.0118, 0.0070), BOTTLE, (0, 0, 0.0811)),
    Part((0.0080, 0.0080, 0.0070), BOTTLE, (0, 0, 0.0930)),
    *octagon(0.0071, 0.0552, 0.1029, BOTTLE),
    Part((0.0074, 0.0060), CORK, (0, 0, 0.1525), solid=False),
    Part((0.0214, 0.0140), LABEL, (0, 0, 0.0360), solid=False),
)


# 150 mm high; a spout along -y, a handle along y
MOKA_POT = (
    Part((0.0250, 0.0250, 0.0666), METAL, (0, 0, 0.0004), drawn=False),
    *ring(8, 0.0313, 0.0004, (0.0042, 0.0666), 0.0, METAL),
    Part((0.0176, 0.0058, 0.0245), METAL, (0, -0.0359, 0.0426)),
    Part((0.0080, 0.0072, 0.0137), METAL, (0, -0.0491, 0.0462)),
    Part((0.0102, 0.0072, 0.0137), BLACK, (0, 0.0416, 0.0525)),
    Part((0.0066, 0.0141, 0.0070), BLACK, (0, 0.0583, 0.0603)),
    Part((0.0066, 0.0141, 0.0070), BLACK, (0, 0.0755, 0.0539), quat_x(math.radians(-40.8))),
    Part((0.0066, 0.0071, 0.0275), BLACK, (0, 0.0725, 0.0282), quat_x(math.radians(-26.9))),
    Part((0.0066, 0.0071, 0.0101), BLACK, (0, 0.0576, 0.0023), quat_x(math.radians(-44.6))),
    Part((0.0052, 0.0060, 0.0114), BLACK, (0, -0.0013, 0.0743)),
    Part((0.0310, 0.0010), WHITE, (0, 0, 0.0670), solid=False),
)

# 190 mm wide, the handle along x
FRYING_PAN = (
    *octagon(0.0700, 0.0060, 0.0068, IRON, (0.0072, -0.0005)),
    *ring(16, 0.0885, 0.0223, (0.0036, 0.0213), math.radians(31.1), IRON, (0.0072, -0.0005)),
    Part((0.0200, 0.0105, 0.0075), IRON, (0.1205, 0.0020, 0.0235), quat_y(math.radians(-24))),
    Part((0.0665, 0.0127, 0.0062), BLACK, (0.1926, 0, 0.0441), quat_y(math.radians(-7.35))),
)

# 108 mm high, the handle along -x
PORCELAIN_MUG = (
    *octagon(0.0225, 0.0052, 0.0076, PORCELAIN, (0.0154, -0.0020)),
    *ring(12, 0.0330, 0.0239, (0.0014, 0.0189), math.radians(23.6), PORCELAIN, (0.0164, -0.0010)),
    *ring(12, 0.0403, 0.0758, (0.0024, 0.0326), 0.0, PORCELAIN, (0.0164, -0.0010)),
    Part((0.0038, 0.0080, 0.0198), PORCELAIN, (-0.0595, 0, 0.0560)),
    Part((0.0198, 0.0080, 0.0038), PORCELAIN, (-0.0416, 0, 0.0286), quat_y(math.radians(28.7))),
    Part((0.0198, 0.0080, 0.0038), PORCELAIN, (-0.0463, 0, 0.0834), quat_y(math.radians(-34.7))),
)

# 132 mm high, the handle along x
RED_MUG = (
    *octagon(0.0240, 0.0046, 0.0031, MUG_RED, (-0.0158, -0.0030)),
    *ring(12, 0.0310, 0.0645, (0.0035, 0.0664), math.radians(6.5), MUG_RED, (-0.0158, -0.0030)),
    Part((0.0029, 0.0076, 0.0342), MUG_RED, (0.0368, 0.0011, 0.0504), quat_y(math.radians(42.5))),
    Part((0.0027, 0.0069, 0.0192), MUG_RED, (0.0547, 0.0011, 0.0944), quat_y(math.radians(-5.9))),
    Part((0.0182, 0.0069, 0.0027), MUG_RED, (0.0346, 0.0011, 0.1116), quat_y(math.radians(-8.2))),
)

# 103 mm high, the handle along x
WHITE_YELLOW_MUG = (
    *octagon(0.0225, 0.0025, 0.0027, YELLOW, (-0.0182, 0)),
    *ring(12, 0.0310, 0.0106, (0.0041, 0.0103), math.radians(36.2), YELLOW, (-0.0182, 0)),
    *ring(16, 0.0424, 0.0593, (0.0041, 0.0436), math.radians(7.5), YELLOW, (-0.0180, 0)),
    Part((0.0041, 0.0088, 0.0292), YELLOW, (0.0641, 0, 0.0560)),
    Part((0.0249, 0.0088, 0.0041), YELLOW, (0.0402, 0, 0.0263), quat_y(math.radians(-11.8))),
    Part((0.0217, 0.0088, 0.0041), YELLOW, (0.0464, 0, 0.0796), quat_y(math.radians(-6.3))),
)

# standing on its edge: 29 mm thick, 134 mm high
BOOK = (
    Part((0.0143, 0.0552, 0.0672), BLACK, (-0.0005, -0.0122, 0.0694)),
    Part((0.0110, 0.0530, 0.0676), IRON, (-0.0005, -0.0122, 0.0696), solid=False),
)

# compartments at the front, back, left and right, open at the top
CADDY = (
    Part((0.0755, 0.2169, 0.0062), WOOD, (0, 0, 0.0076)),
    Part((0.0706, 0.0062, 0.0824), WOOD, (0, -0.0680, 0.0850)),
    Part((0.0706, 0.0062, 0.0824), WOOD, (0, -0.2094, 0.0850)),
    Part((0.0040, 0.2098, 0.0815), WOOD, (0.0668, 0, 0.0868)),
    Part((0.0040, 0.0668, 0.0434), WOOD, (-0.0016, 0, 0.0552)),
    Part((0.0040, 0.2098, 0.0346), WOOD, (-0.0669, 0, 0.0395)),
    Part((0.0040, 0.0766, 0.0796), WOOD, (-0.0669, -0.1398, 0.0877)),
    *(
        Part(half, WOOD, (x, y, z))
        for y in (0.0706, 0.2082)
        for half, x, z in (
            ((0.0706, 0.0036, 0.0333), 0.0, 0.0452),
            ((0.0299, 0.0036, 0.0368), 0.0345, 0.0748),
            ((0.0114, 0.0036, 0.0188), 0.0549, 0.1236),
        )
    ),
)
CADDY_REGIONS = "".join(
    (
        box_site("right_contain_region", (0.00631, -0.14339, 0.06558), (0.06196, 0.06216, 0.06046), (0, 0, 1, 0)),
        box_site("left_contain_region", (0.00631, 0.14551, 0.06558), (0.06196, 0.06216, 0.06046), (0, 0, 1, 0)),
        box_site("back_contain_region", (0.03364, -0.00064, 0.08558), (0.02775, 0.06216, 0.06046), (0, 0, 1, 0)),
        box_site(
            "front_contain_region",
            (-0.03102, -0.00064, 0.04054),
            (0.02775, 0.03595, 0.06216),
            (0, 0, 0.70711, -0.70711),
        ),
    )
)


def _object_xml(name, parts) -> str:
    regions = CADDY_REGIONS if name == "desk_caddy" else ""
    return mjcf.object_xml(name, regions + mjcf.geoms(parts, mjcf.GENTLE_PHYSICS), SITES)


def files() -> dict[str, str]:
    """Return path in an assets folder -> MJCF."""
    scanned = {
        "akita_black_bowl": BOWL,
        "plate": PLATE,
        "glazed_rim_porcelain_ramekin": RAMEKIN,
        "chefmate_8_frypan": FRYING_PAN,
    }
    modelled = {
        "wine_bottle": WINE_BOTTLE,
        "moka_pot": MOKA_POT,
        "porcelain_mug": PORCELAIN_MUG,
        "red_coffee_mug": RED_MUG,
        "white_yellow_mug": WHITE_YELLOW_MUG,
        "black_book": BOOK,
        "desk_caddy": CADDY,
    }
    return {
        f"{folder}/{name}/{name}.xml": _object_xml(name, parts)
        for folder, objects in (("stable_scanned_objects", scanned), ("turbosquid_objects", modelled))
        for name, parts in objects.items()
    }
