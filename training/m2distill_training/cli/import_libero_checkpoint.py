"""The command `m2distill import libero-checkpoint`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser

DESCRIPTION = "Convert LIBERO's task*_model.pth to a checkpoint directory, without executing code from its pickle."
EXAMPLES = ('m2distill import libero-checkpoint task9_model.pth runs/libero --instructions "open the top drawer"',)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("file", type=Path, help="LIBERO's checkpoint")
    parser.add_argument("out", type=Path, help="the new checkpoint directory")
    parser.add_argument(
        "--instructions",
        nargs="+",
        default=[],
        help="instructions that the policy knows; the file does not hold them. Embedded with bert-base-cased",
    )
    parser.add_argument(
        "--bert", type=Path, help="folder with bert-base-cased; default: the hub's local cache, then the hub"
    )


def run(options: argparse.Namespace) -> None:
    from m2distill_policy.language.text_encoder import BERT, load_text_encoder
    from m2distill_training.data.libero.libero_checkpoint import import_libero_checkpoint

    embeddings = {}
    if texts := options.instructions:
        embeddings = dict(zip(texts, load_text_encoder(BERT, options.bert).encode(texts), strict=True))
    print(f"{options.out}: {import_libero_checkpoint(options.file, options.out, embeddings)}")
    if texts:
        print(f"next: m2distill evaluate {options.out}")
    else:
        print("it knows no instruction yet; repeat with --instructions to use it on a robot")
