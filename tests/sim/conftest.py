"""Fixtures of the simulation tests: assets, a separate cache folder, and an environment with the built-in assets."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for settling.py and goals.py
os.environ.setdefault("MUJOCO_GL", "egl")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("M2DISTILL_ASSETS", raising=False)
        yield


BESIDE = Path(__file__).parents[2].parent / "shared" / "libero_assets"  # beside the checkout
REAL_ASSETS = os.environ.get("M2DISTILL_ASSETS") or (str(BESIDE) if BESIDE.is_dir() else None)


@pytest.fixture(scope="session")
def real_assets():
    if not REAL_ASSETS:
        pytest.skip("needs LIBERO's assets: set M2DISTILL_ASSETS to their folder, or put it in ../shared/libero_assets")
    from m2distill_sim.assets import find_assets

    return find_assets(REAL_ASSETS)


@pytest.fixture(scope="session")
def builtin():
    from m2distill_sim.assets import find_assets

    return find_assets("builtin")


@pytest.fixture(scope="session")
def soup_env(builtin):
    """LIBERO-OBJECT task 0 with both cameras at 64 px; every test resets it."""
    from m2distill_sim.libero_env import LiberoEnv

    with LiberoEnv("libero_object", 0, builtin, {"agentview": (64, 64), "wrist": (64, 64)}) as env:
        yield env
