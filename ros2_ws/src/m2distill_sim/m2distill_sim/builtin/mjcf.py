"""Building blocks of the built-in set: a coloured primitive, a ring of boxes, an object's MJCF.

Lengths are in metres, angles in radians, quaternions in wxyz order, all in the frame of LIBERO's object. Contact and
mass parameters are LIBERO's. Parts that rest on a table are boxes: MuJoCo finds one contact point between a cylinder
and a box, and four between two boxes.
"""

import math
from dataclasses import dataclass

# Contact and mass parameters of every LIBERO object, as in its MJCF.
PHYSICS = 'solimp="0.998 0.998 0.001" solref="0.001 1" density="100" friction="0.95 0.3 0.1"'
# The same, but overlaps are resolved in 10 ms instead of 1. In LIBERO's initial states bowls and plates overlap by up
# to 8 mm, and with these few flat walls 1 ms would throw them across the table.
GENTLE_PHYSICS = PHYSICS.replace('solref="0.001 1"', 'solref="0.01 1"')
INVISIBLE = 'rgba="0 0 0 0"'
ALONG_Y = (0.70711, 0.70711, 0.0, 0.0)  # rotates a cylinder's axis from z to y

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Part:
    """One geom. `half` is (x, y, z) of a box, or (radius, half length) of a cylinder along z, before the rotation."""

    half: tuple[float, ...]
    rgb: RGB
    pos: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quat: tuple[float, float, float, float] | None = None
    solid: bool = True  # False: drawn only, no contact and no mass
    drawn: bool = True  # False: contact and mass only

    def geoms(self, physics: str) -> str:
        """Return the visual and the collision geom."""
        place = _shape(self.half, self.pos, self.quat)
        drawn = f'<geom {place} contype="0" conaffinity="0" group="1" rgba="{format_numbers(self.rgb)} 1"/>'
        solid = f'<geom {place} {physics} group="0" rgba="0.8 0.8 0.8 0"/>'
        return (drawn if self.drawn else "") + (solid if self.solid else "")


def format_numbers(values) -> str:
    return " ".join(f"{value:g}" for value in values)


def geoms(parts: tuple[Part, ...], physics: str = PHYSICS) -> str:
    return "\n".join(part.geoms(physics) for part in parts)


def box_site(name: str, pos, half, quat=(1.0, 0.0, 0.0, 0.0)) -> str:
    """Return a region that goal predicates read; it is never drawn."""
    return f'<site name="{name}" type="box" {_place(pos, quat)} size="{format_numbers(half)}" group="0" {INVISIBLE}/>'


def ring(
    count: int,
    radius: float,
    height: float,
    half: tuple[float, float],
    tilt: float,
    rgb: RGB,
    centre: tuple[float, float] = (0.0, 0.0),
) -> tuple[Part, ...]:
    """Return a round wall of boxes that are just wide enough to leave no gap at their widest edge.

    Args:
        count: number of boxes.
        radius: of their middles.
        height: of their middles.
        half: half of their thickness, and of their length up the wall.
        tilt: outward from upright.
        rgb: colour.
        centre: (x, y) of the axis.
    """
    thick, long = half
    width = (radius + long * abs(math.sin(tilt)) + thick) * math.tan(math.pi / count)
    parts = []
    for index in range(count):
        turn = 2 * math.pi * index / count
        pos = (centre[0] + radius * math.cos(turn), centre[1] + radius * math.sin(turn), height)
        (a, b), (c, d) = ((math.cos(angle / 2), math.sin(angle / 2)) for angle in (turn, tilt))
        parts.append(Part((thick, width, long), rgb, pos, (a * c, -b * d, a * d, b * c)))  # Rz(turn) Ry(tilt)
    return tuple(parts)


def quat_x(angle: float) -> tuple[float, float, float, float]:
    """Return the quaternion of a rotation about x."""
    return (math.cos(angle / 2), math.sin(angle / 2), 0.0, 0.0)


def quat_y(angle: float) -> tuple[float, float, float, float]:
    """Return the quaternion of a rotation about y."""
    return (math.cos(angle / 2), 0.0, math.sin(angle / 2), 0.0)


def octagon(
    radius: float, half_height: float, height: float, rgb: RGB, centre: tuple[float, float] = (0.0, 0.0)
) -> tuple[Part, ...]:
    """Return a disc that stands firmly: two crossed boxes, drawn as a cylinder."""
    short, pos = radius * math.tan(math.pi / 8), (*centre, height)
    return (
        Part((radius, half_height), rgb, pos, solid=False),
        Part((radius, short, half_height), rgb, pos, drawn=False),
        Part((short, radius, half_height), rgb, pos, drawn=False),
    )


def object_xml(name: str, content: str, sites: tuple[float, float, float], site_size: float = 0.005) -> str:
    """Return an object's MJCF. `content` is its body; `sites` are (bottom z, top z, horizontal radius)."""
    bottom, top, radius = sites
    marks = {"bottom_site": (0, 0, bottom), "top_site": (0, 0, top), "horizontal_radius_site": (radius, radius, 0)}
    site_lines = "\n".join(
        f'<site name="{site}" pos="{format_numbers(pos)}" size="{site_size:g}" {INVISIBLE}/>'
        for site, pos in marks.items()
    )
    return f"""<mujoco model="{name}">
<asset/>
<worldbody>
<body>
<body name="object">
{content}
</body>
{site_lines}
</body>
</worldbody>
</mujoco>
"""


def _shape(half, pos, quat) -> str:
    shape = "box" if len(half) == 3 else "cylinder"
    return f'type="{shape}" size="{format_numbers(half)}" {_place(pos, quat)}'


def _place(pos, quat) -> str:
    return f'pos="{format_numbers(pos)}"' + (f' quat="{format_numbers(quat)}"' if quat else "")
