"""What stands on the tables: bowl, plate, ramekin, wine bottle.

Each is a firm base and a wall of boxes with the radius, height and thickness of LIBERO's collision boxes, z up, so that
a gripper finds the rim where LIBERO's has it.
"""

import math

from m2distill_sim.builtin.mjcf import Part, geoms, object_xml, octagon, ring

BLACK, WHITE, RED, PORCELAIN = (0.07, 0.07, 0.08), (0.92, 0.92, 0.91), (0.72, 0.10, 0.13), (0.75, 0.76, 0.78)
BOTTLE, CORK, LABEL = (0.03, 0.07, 0.04), (0.80, 0.62, 0.40), (0.57, 0.52, 0.44)
SITES = (-0.06, 0.04, 0.025)

# 106 mm wide, 52 mm high
BOWL = (*octagon(0.0235, 0.0026, 0.0042, BLACK),
        *ring(12, 0.0335, 0.0098, (0.0015, 0.0099), math.radians(60), BLACK),
        *ring(16, 0.0471, 0.0337, (0.0015, 0.0188), math.radians(14.7), BLACK))

# 133 mm wide, the rim 14 mm above the table
PLATE = (*octagon(0.0306, 0.0022, 0.0031, WHITE),
         *ring(12, 0.0483, 0.0070, (0.0025, 0.0191), math.radians(70.4), WHITE),
         Part((0.0300, 0.0003), RED, (0, 0, 0.0054), solid=False))

# 84 mm wide, 43 mm high
RAMEKIN = (*octagon(0.0330, 0.0032, 0.0041, PORCELAIN),
           *ring(16, 0.0382, 0.0217, (0.0026, 0.0208), math.radians(8.6), PORCELAIN))

# 158 mm high; the belly 39 mm, the neck 14 mm wide
WINE_BOTTLE = (Part((0.0150, 0.0150, 0.0362), BOTTLE, (0, 0, 0.0373), drawn=False),
               *ring(8, 0.0178, 0.0333, (0.0019, 0.0298), 0.0, BOTTLE),
               Part((0.0118, 0.0118, 0.0070), BOTTLE, (0, 0, 0.0811)),
               Part((0.0080, 0.0080, 0.0070), BOTTLE, (0, 0, 0.0930)),
               *octagon(0.0071, 0.0552, 0.1029, BOTTLE),
               Part((0.0074, 0.0060), CORK, (0, 0, 0.1525), solid=False),
               Part((0.0214, 0.0140), LABEL, (0, 0, 0.0360), solid=False))


def files() -> dict[str, str]:
    """Path in an assets folder -> MJCF."""
    scanned = {"akita_black_bowl": BOWL, "plate": PLATE, "glazed_rim_porcelain_ramekin": RAMEKIN}
    drawn = {"wine_bottle": WINE_BOTTLE}
    return {f"{folder}/{name}/{name}.xml": object_xml(name, geoms(parts), SITES)
            for folder, objects in (("stable_scanned_objects", scanned), ("turbosquid_objects", drawn))
            for name, parts in objects.items()}
