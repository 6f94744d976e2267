"""The command `m2distill export onnx`."""

import argparse
from pathlib import Path

from m2distill_policy.utils.argument_parser import Parser

DESCRIPTION = """Write a checkpoint as ONNX, for other runtimes: encoder.onnx (one observation to tokens), decoder.onnx
(the tokens of a history to mixtures), spec.json and the embeddings of the instructions. Needs the package onnx."""
EXAMPLES = ("m2distill export onnx runs/two_tasks/stages/2/checkpoint --out runs/onnx",)


def add_arguments(parser: Parser) -> None:
    parser.add_argument("checkpoint", type=Path, help="folder of the checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="folder of the files; new or empty")


def run(options: argparse.Namespace) -> None:
    from m2distill_policy.checkpoint import load_checkpoint
    from m2distill_training.runs.onnx_files import export_onnx

    for path in export_onnx(load_checkpoint(options.checkpoint), options.out):
        print(path)
    print("next: load both graphs in another runtime; spec.json states their inputs, the embeddings those of the texts")
