"""Furniture on the tables: cabinets with three drawers, the stove with its knob, the microwave, the wine rack.

Joints, their ranges and damping, bodies and regions are LIBERO's. Boxes are those of its collision geometry, without
the ones that are inside others.
"""

import math

from m2distill_sim.builtin.mjcf import ALONG_Y, Part, box_site, geoms, object_xml, octagon, quat_x

DARK_WOOD, DRAWER_WOOD, HANDLE = (0.12, 0.10, 0.09), (0.19, 0.16, 0.14), (0.45, 0.45, 0.46)
WHITE_WOOD, WHITE_DRAWER = (0.84, 0.84, 0.83), (0.74, 0.74, 0.74)
STEEL, IRON, KNOB = (0.58, 0.58, 0.57), (0.28, 0.28, 0.28), (0.10, 0.10, 0.10)
ENAMEL, GLASS = (0.22, 0.22, 0.23), (0.45, 0.46, 0.47)
PINE, MAHOGANY = (0.82, 0.67, 0.52), (0.36, 0.13, 0.06)
HEAVY = '<inertial pos="0 0 0" mass="3" diaginertia="1 1 1"/>'  # LIBERO's, for drawers and knob
# LIBERO's, for the microwave; with 174 kg/m3 its door has 0.2 kg
MICROWAVE_PHYSICS = 'contype="0" conaffinity="1" margin="0.001" solimp=".8 .9 .01" solref=".02 1" density="174"'

SMALL_SITES, LARGE_SITES = (-0.06, 0.04, 0.025), (-0.045, 0.045, 0.045)

# name; heights in m of the walls' middle, the floor, the handle and the region inside
DRAWERS = (
    ("top", 0.1836, 0.1551, 0.1839, 0.18563),
    ("middle", 0.1139, 0.0854, 0.1104, 0.11690),
    ("bottom", 0.0452, 0.0168, 0.0411, 0.04701),
)


def _cabinet(body, front) -> str:
    """Return a cabinet. Drawers slide along -y: closed at 0, open beyond -0.14 m."""
    shell = (
        Part((0.1191, 0.0042, 0.1058), body, (0.0021, 0.1094, 0.1143)),
        Part((0.1228, 0.0896, 0.0025), body, (0.0040, 0.0164, 0.0076)),
        Part((0.0052, 0.0954, 0.1058), body, (-0.1122, 0.0162, 0.1143)),
        Part((0.0052, 0.0954, 0.1058), body, (0.1190, 0.0162, 0.1143)),
        Part((0.1117, 0.0894, 0.0009), body, (0.0038, 0.0187, 0.1494)),
        Part((0.1117, 0.0894, 0.0009), body, (0.0039, 0.0187, 0.0793)),
        Part((0.1273, 0.0941, 0.0014), body, (0.0039, 0.0158, 0.2216)),
    )
    top = box_site("top_side", (0.00354, 0.01567, 0.22152), (0.12534, 0.09438, 0.00147))
    drawers = "\n".join(_drawer(*heights, front) for heights in DRAWERS)
    return f'<body name="base">\n{top}\n{geoms(shell)}\n{drawers}\n</body>'


def _drawer(name, middle, floor, handle, region, wood) -> str:
    parts = (
        Part((0.1093, 0.0027, 0.0343), wood, (0.0033, -0.0752, middle - 0.0003)),
        Part((0.1068, 0.0036, 0.0321), wood, (0.0033, -0.0684, middle)),
        Part((0.1068, 0.0036, 0.0321), wood, (0.0033, 0.0908, middle)),
        Part((0.0024, 0.0815, 0.0316), wood, (-0.1019, 0.0111, middle)),
        Part((0.0024, 0.0815, 0.0316), wood, (0.1089, 0.0111, middle)),
        Part((0.1070, 0.0809, 0.0040), wood, (0.0035, 0.0105, floor)),
        Part((0.0445, 0.0077, 0.0082), HANDLE, (-0.0028, -0.1016, handle)),
        Part((0.0051, 0.0106, 0.0055), HANDLE, (0.0292, -0.0835, handle)),
        Part((0.0051, 0.0106, 0.0055), HANDLE, (-0.0356, -0.0835, handle)),
    )
    inside = box_site(
        f"{name}_region", (0.00328, 0.01128, region), (0.02993, 0.07561, 0.10224), (0.70711, 0, 0.70711, 0)
    )
    return f"""<body name="cabinet_{name}">
{HEAVY}
<joint name="{name}_level" type="slide" axis="0 1 0" limited="true" range="-0.16 0.01" damping="50"/>
{inside}
{geoms(parts)}
</body>"""


def _stove() -> str:
    """Return the stove. The knob turns about z and is on beyond 0.5 rad, where LIBERO shows the site `burner`."""
    plate = (Part((0.095, 0.095, 0.02), STEEL), Part((0.095, 0.095, 0.0005), STEEL, (0, 0, 0.025), drawn=False))
    burner = tuple(
        Part((radius, half), rgb, (0, 0, 0.02), solid=False)
        for radius, half, rgb in (
            (0.065, 0.0010, IRON),
            (0.050, 0.0012, STEEL),
            (0.036, 0.0014, IRON),
            (0.020, 0.0016, STEEL),
        )
    )
    bar = (
        Part((0.0121, 0.0345, 0.0243), KNOB, (0.0014, 0.0174, 0.0257)),
        Part((0.0121, 0.0103, 0.0200), KNOB, (0.0012, -0.0225, 0.0245)),
        Part((0.0121, 0.0042, 0.0166), KNOB, (0.0011, -0.0364, 0.0172)),
    )
    knob = (*octagon(0.0450, 0.0062, 0.0066, KNOB, (0.0013, 0.0046)), *bar)
    region = box_site("cook_region", (0, 0, 0), (0.075, 0.075, 0.0025))
    return f"""<body name="base">
<body name="burner" pos="0.15 0 0">
{region}
{geoms(plate)}
<body name="burner_plate">
{geoms(burner)}
</body>
<site name="burner" pos="0 0 0.022" size="0.0625 0.0005" rgba="0.9 0.05 0.05 1" type="cylinder"/>
</body>
<body name="button" quat="0.7071068 0 0 0.7071068">
{HEAVY}
<joint name="button" type="hinge" axis="0 0 1" limited="true" range="-0.005 2.1" damping="1"/>
{geoms(knob)}
</body>
</body>"""


def _microwave() -> str:
    """Return the microwave.

    The door turns about z from 0 (closed) to -2.09 rad. It does not collide with its housing.
    """
    housing = (
        Part((0.0145, 0.0996, 0.0935), ENAMEL, (-0.1580, 0.0115, 0.0935)),
        Part((0.0545, 0.0996, 0.0935), ENAMEL, (0.1180, 0.0115, 0.0935)),
        Part((0.1035, 0.0150, 0.0935), ENAMEL, (-0.0405, 0.0955, 0.0935)),
        Part((0.1035, 0.0845, 0.0095), ENAMEL, (-0.0400, -0.0035, 0.1775)),
        Part((0.1035, 0.0840, 0.0120), ENAMEL, (-0.0400, -0.0040, 0.0120)),
        Part((0.0425, 0.0120, 0.0935), ENAMEL, (0.1300, -0.0985, 0.0935)),
    )
    door = (
        Part((0.1295, 0.0120, 0.0925), ENAMEL, (0.1295, -0.0130, 0)),
        Part((0.0900, 0.0005, 0.0650), GLASS, (0.1150, -0.0252, 0), solid=False),
        Part((0.0100, 0.0650), STEEL, (0.2375, -0.0540, 0)),
        *(Part((0.0100, 0.0150), STEEL, (0.2375, -0.0375, z), ALONG_Y) for z in (0.065, -0.065)),
    )
    regions = box_site("top_side", (0, 0.01, 0.20), (0.12, 0.0835, 0.005)) + box_site(
        "heating_region", (0, 0.01, 0.096), (0.12, 0.0835, 0.08)
    )
    return f"""{regions}
{geoms(housing, MICROWAVE_PHYSICS)}
<body name="microdoorroot" pos="-0.1725 -0.088 0.096">
<joint name="microjoint" type="hinge" axis="0 0 1" limited="true" range="-2.094 0" damping="0.5"/>
{geoms(door, MICROWAVE_PHYSICS)}
</body>"""


def _wine_rack() -> str:
    """Return the wine rack: two shelves that slope down to a stopper each, on a leaning post."""
    slope, lip = quat_x(math.radians(31.26)), quat_x(math.radians(29.28))
    parts = (
        Part((0.1344, 0.0789, 0.0045), PINE, (0, -0.0061, 0.2512), slope),
        Part((0.1344, 0.0789, 0.0045), PINE, (0, -0.0427, 0.1273), slope),
        Part((0.1322, 0.0011, 0.0087), PINE, (0, -0.0748, 0.2207), lip),
        Part((0.1322, 0.0011, 0.0087), PINE, (0, -0.1091, 0.0974), lip),
        Part((0.0665, 0.0930, 0.0045), MAHOGANY, (0, 0, 0.0066)),
        Part((0.0900, 0.0600, 0.0045), MAHOGANY, (0, 0.0694, 0.0101), quat_x(math.radians(-7.5))),
        Part((0.0900, 0.0600, 0.0045), MAHOGANY, (0, -0.0643, 0.0126), quat_x(math.radians(8.05))),
        Part((0.0904, 0.0141, 0.0045), MAHOGANY, (0, 0, 0.0205)),
        Part((0.0076, 0.0091, 0.1616), MAHOGANY, (0, 0.0089, 0.1703), quat_x(math.radians(-15.84))),
    )
    region = box_site("top_region", (0, -0.08003, 0.21745), (0.10087, 0.022, 0.00251), (0.8549119, -0.5187733, 0, 0))
    return region + geoms(parts)


def files() -> dict[str, str]:
    """Return path in an assets folder -> MJCF."""
    return {
        "articulated_objects/wooden_cabinet.xml": object_xml(
            "wooden_cabinet", _cabinet(DARK_WOOD, DRAWER_WOOD), LARGE_SITES, 0.05
        ),
        "articulated_objects/white_cabinet.xml": object_xml(
            "white_cabinet", _cabinet(WHITE_WOOD, WHITE_DRAWER), LARGE_SITES, 0.05
        ),
        "articulated_objects/flat_stove.xml": object_xml("flat_stove", _stove(), LARGE_SITES, 0.05),
        "articulated_objects/microwave.xml": object_xml("microwave", _microwave(), (-0.06, 0.06, 0.015)),
        "turbosquid_objects/wine_rack/wine_rack.xml": object_xml("wine_rack", _wine_rack(), SMALL_SITES),
    }
