"""Makes the run folder tests/training/data/run_schema1, which later versions must read (test_stored_run.py).

    python tests/training/make_stored_run.py NEW_FOLDER

It was made once, by the first version that writes schema 1. A later schema gets a folder of its own beside it.
"""

import dataclasses
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")

from conftest import write_libero_file

from m2distill import TrainConfig, evaluate, presets, train
from m2distill_policy.models import StageConfig
from m2distill_training.runs.records import read_json

TEXTS = (
    "pick up the alphabet soup and place it in the basket",
    "pick up the cream cheese and place it in the basket",
)  # of LIBERO-OBJECT's first two tasks, so that the run can be evaluated


def smallest() -> TrainConfig:
    """Return the preset debug with a smaller network and smaller images."""
    config = presets.debug()
    network = {"stem_width": 4, "stages": (StageConfig(4, 1, 2),), "keypoints": 2, "width": 8, "head_width": 4}
    model = dataclasses.replace(config.model, **network, mlp_width=8, mixture_hidden=8)
    return dataclasses.replace(config, image_px=8, history=2, model=model)


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    os.chdir(folder)  # the paths in data.json are relative
    Path("demos").mkdir()
    files = [
        write_libero_file(Path("demos") / f"{name}_demo.hdf5", text, demos=2, steps=6, seed=number, size_px=8)
        for number, (name, text) in enumerate(zip("ab", TEXTS, strict=True))
    ]
    run = train(smallest(), files, Path("run"))
    evaluate(run.path, episodes=1, max_steps=2, workers=0, assets="builtin")
    for path in (run.path / "tensorboard", run.path / "videos", Path("demos") / ".m2distill_cache"):
        shutil.rmtree(path, ignore_errors=True)
    (run.path / "lock").unlink()
    anywhere = {"cpu": "any", "system": "any", "source": None}
    (started,) = read_json(run.path / "environment.json")
    packages = {name: version for name, version in started["packages"].items() if name in ("torch", "numpy")}
    run.write_json("environment.json", [started | anywhere | {"packages": packages}])
    evaluation = read_json(run.path / "evaluation.json")
    run.write_json("evaluation.json", evaluation | {"ran": evaluation["ran"] | anywhere})


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
