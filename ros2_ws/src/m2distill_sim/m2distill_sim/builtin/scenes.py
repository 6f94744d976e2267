"""Scenes: floor, table, lights and cameras, with the names that LIBERO's arenas require.

The arenas also require the texture files; no visible geom uses them.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from m2distill_sim.builtin.mjcf import INVISIBLE, Part, format_numbers, geoms

FLOOR_GREY, WOOD = (0.45, 0.43, 0.41), (0.70, 0.63, 0.55)
WALL_GREY, KITCHEN_WALL = (0.52, 0.52, 0.51), (0.13, 0.13, 0.11)
WALNUT, DESK = (0.32, 0.21, 0.16), (0.48, 0.33, 0.17)

HEAD = """<mujoco model="{name}">
  <asset>
    <texture type="skybox" builtin="flat" rgb1="0.75 0.78 0.80" rgb2="0.75 0.78 0.80" width="8" height="48"/>
    <texture name="texplane" type="2d" file="../textures/floor.png"/>
    <texture name="tex-wall" type="2d" file="../textures/wall.png"/>
  </asset>
  <worldbody>
{content}
    <light dir="-.6 -.2 -1" directional="true" diffuse="{diffuse}" ambient="{ambient}" specular="0 0 0"
           castshadow="false"/>
    <camera name="frontview" mode="fixed" pos="1.0 0 1.45" quat="0.56 0.43 0.43 0.56"/>
    <camera name="agentview" mode="fixed" pos="0.5 0 1.35" quat="0.653 0.271 0.271 0.653"/>
  </worldbody>
</mujoco>
"""


def _floor(rgb) -> str:
    return f'<geom name="floor" type="plane" size="3 3 .125" condim="3" group="1" rgba="{format_numbers(rgb)} 1"/>'


def _floor_scene() -> str:
    return f'<body name="floor" pos="0 0 0">\n{_floor(FLOOR_GREY)}\n</body>'


def _wall(rgb) -> str:
    """Return a wall behind the robot, as wide as the cameras' view."""
    return geoms((Part((0.01, 3.0, 1.5), rgb, (-2, 0, 1.5), solid=False),))


def _table_scene(floor, wall, table) -> str:
    """Return a table whose sizes the arena sets, and its legs, which are in no camera's view."""
    drawn = f'contype="0" conaffinity="0" group="1" rgba="{format_numbers(table)} 1"'
    legs = "\n".join(
        f'<geom name="table_leg{leg}_visual" type="cylinder" size="0.05 0.1" {drawn}/>' for leg in (1, 2, 3, 4)
    )
    return f"""{_floor(floor)}
{_wall(wall)}
<body name="table" pos="0 0 0.4">
<geom name="table_collision" type="box" size="0.4 0.4 0.4" group="0" friction="1 0.005 0.0001"/>
<geom name="table_visual" type="box" size="0.4 0.4 0.4" {drawn}/>
<site name="table_top" pos="0 0 0.4" size="0.001 0.001 0.001" {INVISIBLE}/>
{legs}
</body>"""


def _living_room_scene() -> str:
    table = (
        Part((0.8611, 0.5815, 0.0118), WALNUT, (-0.2104, -0.0073, 0.4249), solid=False),
        Part((0.6717, 0.5815, 0.0118), WALNUT, (-0.1976, -0.0073, 0.4249), drawn=False),
        Part((0.8611, 0.4168, 0.0118), WALNUT, (-0.2104, 0, 0.4249), drawn=False),
        Part((0.4352, 0.4116, 0.2088), WALNUT, (0, 0, 0.2041)),
    )
    return f"""<body name="floor" pos="0 0 0">
{_floor(FLOOR_GREY)}
</body>
{_wall(WALL_GREY)}
<body name="living_room_table">
<body name="living_room_table_col" pos="-0.25 0.25 0" quat="0.707 0 0 0.707">
{geoms(table)}
</body>
</body>"""


def _study_scene() -> str:
    desk = (
        Part((0.6895, 1.3927, 0.0358), DESK, (0, 0, 0.8493)),
        *(Part((0.02, 0.05, 0.394), DESK, (x, y, 0.394)) for x in (-0.5, 0.5) for y in (-0.7, 0.7)),
    )
    return f"""{_floor(FLOOR_GREY)}
{_wall(WALL_GREY)}
<body name="study_table">
{geoms(desk)}
</body>"""


@dataclass(frozen=True)
class SceneModel:
    """MJCF of a scene and the texture files that its arena requires."""

    name: str  # of its MJCF
    content: str
    textures: tuple[str, str] = ("light-gray-floor-tile", "light-gray-plaster")  # the arena's, of floor and wall


# LIBERO's problem, in lower case -> its scene
SCENES = {
    "libero_floor_manipulation": SceneModel("libero_floor_base_style", _floor_scene()),
    "libero_tabletop_manipulation": SceneModel("libero_tabletop_base_style", _table_scene(FLOOR_GREY, WALL_GREY, WOOD)),
    "libero_kitchen_tabletop_manipulation": SceneModel(
        "libero_kitchen_tabletop_base_style",
        _table_scene(FLOOR_GREY, KITCHEN_WALL, WOOD),
        ("gray_ceramic_tile", "yellow_linen_wall_texture"),
    ),
    "libero_living_room_tabletop_manipulation": SceneModel(
        "libero_living_room_tabletop_base_style",
        _living_room_scene(),
        ("seamless_wood_planks_floor", "light-gray-plaster"),
    ),
    "libero_study_tabletop_manipulation": SceneModel("libero_study_base_style", _study_scene()),
}


def files() -> dict[str, str | bytes]:
    """Return path in an assets folder -> MJCF or image."""
    grey = cv2.imencode(".png", np.full((4, 4, 3), 128, np.uint8))[1].tobytes()
    return {
        **{f"textures/{texture}.png": grey for scene in SCENES.values() for texture in scene.textures},
        **{f"scenes/{scene.name}.xml": _scene_xml(scene) for scene in SCENES.values()},
    }


def _scene_xml(scene: SceneModel) -> str:
    """Return a scene's MJCF. Dark floors need more light than tables, which the wrist camera's light brightens."""
    diffuse, ambient = (".6 .6 .6", ".25 .25 .25") if "floor" in scene.name else (".5 .5 .5", ".15 .15 .15")
    return HEAD.format(name=scene.name, content=scene.content, diffuse=diffuse, ambient=ambient)
