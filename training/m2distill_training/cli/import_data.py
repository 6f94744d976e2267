"""The commands `m2distill import libero-checkpoint` and `m2distill import robosuite-demos`."""

from pathlib import Path

from tyro.conf import Positional


def libero_checkpoint_command(
    file: Positional[Path], out: Positional[Path], instructions: tuple[str, ...] = (), bert: Path | None = None
) -> None:
    """LIBERO's task*_model.pth becomes a checkpoint directory, without running anything that the pickle asks for.

    Example: m2distill import libero-checkpoint task9_model.pth runs/libero --instructions "open the top drawer"

    Args:
        file: LIBERO's checkpoint.
        out: the new checkpoint directory.
        instructions: what it shall obey; the file does not say. Each is embedded with bert-base-cased.
        bert: folder with bert-base-cased; default: the hub's local cache, then the hub.
    """
    from m2distill_policy.language.text_encoder import BERT, load_text_encoder
    from m2distill_training.data.libero.libero_checkpoint import import_libero_checkpoint

    embeddings = {}
    if instructions:
        embeddings = dict(zip(instructions, load_text_encoder(BERT, bert).encode(instructions), strict=True))
    print(f"{out}: {import_libero_checkpoint(file, out, embeddings)}")
    if not instructions:
        print("it knows no instruction yet; repeat with --instructions to use it on a robot")


def robosuite_demos_command(out: Positional[Path], file: Path | None = None, size_px: int = 128) -> None:
    """robosuite's three human demonstrations of lifting a cube become a LIBERO-format file, OUT/lift_demo.hdf5:
    the recorded states drawn from both cameras, and OSC_POSE actions derived from the motion in them. It trains
    like any other file, and its task is evaluated as --suite robosuite.

    Example: m2distill import robosuite-demos data/lift

    Args:
        out: folder of the new file.
        file: a demo.hdf5 that robosuite recorded of its Lift; default: the one in its wheel.
        size_px: side of the two cameras' images.
    """
    from m2distill_training.experiments.robosuite_demos import import_lift

    print(import_lift(out, file, size_px))
