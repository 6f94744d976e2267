"""`python -m m2distill_training` is `m2distill`; torchrun starts it so."""

from m2distill_training.cli.main import main

main()
