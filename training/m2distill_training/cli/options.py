"""Options that several commands share: one name, one meaning and one default each."""

import argparse
from pathlib import Path

from m2distill_policy.action import DEFAULT_SAMPLING, SAMPLING_MODES
from m2distill_policy.cameras import CAMERAS, Camera, read_cameras
from m2distill_policy.utils.argument_parser import Parser

MAX_STEPS = 600  # of an evaluation episode; LIBERO's limit (configs/eval/default.yaml)
EPISODES = 10  # per task; LIBERO's held-out initial states are 40 to 49


def add_demos(parser: Parser, default: int) -> None:
    parser.add_argument("--demos", type=int, default=default, help="demonstrations of each task")


def add_episodes(parser: Parser, default: int = EPISODES, per: str = "task") -> None:
    parser.add_argument(
        "--episodes",
        type=int,
        default=default,
        help=f"evaluation episodes per {per}, each from an initial state that no demonstration used",
    )


def add_max_steps(parser: Parser, default: int = MAX_STEPS, reason: str = "LIBERO's number") -> None:
    parser.add_argument(
        "--max-steps", type=int, default=default, help=f"steps after which an episode has failed; {reason}"
    )


def add_environments(parser: Parser) -> None:
    parser.add_argument(
        "--environments",
        type=int,
        default=4,
        help="simulators per process that share one pass of the policy's network; each takes memory, and their number "
        "may change the last digits of actions",
    )


def add_sampling(parser: Parser) -> None:
    parser.add_argument(
        "--sampling",
        choices=SAMPLING_MODES,
        default=DEFAULT_SAMPLING,
        help="how the policy's mixture becomes an action: stochastic (a full sample, as LIBERO evaluates), low_noise "
        "(a sampled mode, almost without noise) or mode (the mean of the most likely mode)",
    )


def add_workers(parser: Parser, default: int = 2) -> None:
    parser.add_argument(
        "--workers",
        type=int,
        default=default,
        help="processes, each with its own simulator; the result does not depend on it",
    )


def add_spreading(parser: Parser) -> None:
    """Add --workers and --cluster."""
    parser.add_argument(
        "--workers",
        type=int,
        help="CPUs for jobs, and so simulators at the same time; the result does not depend on it; default: 2, with "
        "--cluster all of them",
    )
    parser.add_argument(
        "--cluster",
        help="auto or HOST:PORT: spread the jobs over the Ray cluster of this machine, or the one whose head is there",
    )


def add_assets(parser: Parser) -> None:
    parser.add_argument(
        "--assets",
        help="builtin, installed, hub or a folder; :clustered and :matte after LIBERO's draw them faster; default: "
        "$M2DISTILL_ASSETS, else builtin",
    )


def add_image_size(parser: Parser) -> None:
    parser.add_argument("--image-size-px", type=int, default=128, help="side of the images")


def add_cameras(parser: Parser, default: str = "agentview and wrist") -> None:
    parser.add_argument("--cameras", type=Path, help=f"YAML or JSON file that lists the cameras; default: {default}")


def chosen_cameras(options: argparse.Namespace, default: tuple[Camera, ...] = CAMERAS) -> tuple[Camera, ...]:
    """Return the cameras of the file `--cameras`, or `default` without one. Raises UserError."""
    return default if options.cameras is None else read_cameras(options.cameras)


def add_device(parser: Parser) -> None:
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 ...; auto uses a GPU if there is one")


def add_cache(parser: Parser) -> None:
    parser.add_argument("--cache", type=Path, help="folder for decoded frames; default: beside each data file")


def add_lossless(parser: Parser) -> None:
    parser.add_argument(
        "--lossless", action="store_true", help="videos of a new LeRobot dataset keep every pixel, and are larger"
    )


def add_track(parser: Parser) -> None:
    parser.add_argument(
        "--track", metavar="{wandb,mlflow,trackio}", help="also send the log of the run to this experiment tracker"
    )


def add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def simulation(options: argparse.Namespace) -> dict:
    """The settings of evaluation episodes that `evaluate` and `promote` share."""
    return {
        name: getattr(options, name)
        for name in ("sampling", "max_steps", "environments", "workers", "cluster", "assets")
    }
