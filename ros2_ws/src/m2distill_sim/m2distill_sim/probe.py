"""Check of a machine before it simulates: it must draw an image, and its assets must be those of the others."""

from collections.abc import Mapping

from m2distill_policy.errors import AssetError
from m2distill_sim.suites import assets_of

BALL = "<mujoco><worldbody><camera name='c'/><geom size='1'/></worldbody></mujoco>"


def check_simulation(assets: Mapping[tuple[str, str | None], str]) -> None:
    """Draw an image and compare the assets.

    Args:
        assets: suite and assets, as in suites.assets_of -> AssetSource.identity on the machine that began the work.

    Raises:
        RendererError: no image can be drawn here.
        AssetError: the assets are missing here, or differ.
    """
    from m2distill_sim.renderer import Renderer, mujoco  # selects its platform at import

    Renderer(mujoco.MjModel.from_xml_string(BALL), 8, 8).close()
    for (suite, which), expected in assets.items():
        if (found := assets_of(suite, which).identity()) != expected:
            raise AssetError(f"the assets are {found}, expected {expected}; install the same assets on all machines")
