"""The command `m2distill export half`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser

DESCRIPTION = """Write a copy of a checkpoint of the strategy decoders or networks in which the decoders after the first
are stored in half precision, in half the space. It is used as any other and computes in float32. Actions change by
rounding; evaluate the copy before you deploy it."""
EXAMPLES = ("m2distill export half runs/ten_tasks/stages/10/checkpoint --out runs/small",)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("checkpoint", type=Path, help="folder of the checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder of the copy")


def run(options: argparse.Namespace) -> None:
    from m2distill_policy.checkpoint import load_checkpoint, save_checkpoint
    from m2distill_policy.errors import UserError

    checkpoint = load_checkpoint(options.checkpoint)
    if not checkpoint.model_config.decoders:
        raise UserError(f"{options.checkpoint} has no decoders after the first; only they are stored in half precision")
    if options.out.exists():
        raise UserError(f"{options.out} exists; choose another --out")
    save_checkpoint(options.out, checkpoint, half_decoders=True)
    sizes = [sum(file.stat().st_size for file in folder.iterdir()) for folder in (options.checkpoint, options.out)]
    print(f"{options.out}: {sizes[1] / 1e6:.1f} MB instead of {sizes[0] / 1e6:.1f} MB")
    print(f"next: m2distill evaluate {options.out}")
