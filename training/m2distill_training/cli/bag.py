"""The commands `m2distill import bag` and `m2distill bag recover`."""

from pathlib import Path

from tyro.conf import Positional

from m2distill_policy.errors import UserError


def import_bag_command(
    bags: Positional[tuple[Path, ...]],
    out: Path,
    checkpoint: Path | None = None,
    instruction: str | None = None,
    arm: str | None = None,
    unlabelled: bool = False,
) -> None:
    """Recorded episodes become LIBERO-format files, one per instruction, at the policy's rate and image size.

    What a bag lacks, and how regularly its topics came, is told of each, in OUT/import.json too; OUT/images/ has
    moments of each. Bags of `ros2 bag record` do as well, with --checkpoint.

    Example: m2distill import bag episodes --out data/kitchen

    Args:
        bags: rosbag2 folders, mcap or sqlite3, or folders of such, as the recorder's.
        out: folder of the new files.
        checkpoint: whose spec says what a policy sees; default: the one that the recorder noted.
        instruction: of all these episodes; default: what the recorder noted, else what was said on the topic.
        arm: preset or arm file (.yaml), for the gains of its commands; default: the settings that the recorder noted.
        unlabelled: take episodes too that nobody has judged, such as recovered ones.
    """
    from m2distill_policy.checkpoint import load_checkpoint
    from m2distill_training.data.rosbag.bag_import import REPORT, import_bags

    spec = load_checkpoint(checkpoint).spec if checkpoint else None
    reports = import_bags(bags, out, spec, instruction, arm, unlabelled)
    for report in reports:
        print(report.line())
    for name in dict.fromkeys(report.file for report in reports if report.file):
        print(out / name)
    print(out / REPORT)


def recover_command(folders: Positional[tuple[Path, ...]]) -> None:
    """Finish what a recorder that died has left open: every message that reached its file becomes part of a whole
    episode. Nobody has judged that one yet, and m2distill import bag takes it with --unlabelled.

    Example: m2distill bag recover episodes

    Args:
        folders: the recorder's.
    """
    from m2distill_policy.recording.recovery import recover_episodes

    if not folders:
        raise UserError("no folder given; name the recorder's")
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; name the recorder's")
        found = recover_episodes(folder)
        for each in found:
            print(f"{each.path}: {each.messages} messages, {each.seconds:.1f} s")
        if not found:
            print(f"{folder}: nothing was left open")
