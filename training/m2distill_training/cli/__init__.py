"""The console script `m2distill`: one thin module for each command.

main.py lists the commands and starts them. A command's module holds DESCRIPTION and EXAMPLES for its help page,
`add_arguments(parser)` and `run(options)`, which returns the exit status or None for 0. Whatever is slow to import is
imported in `run`, so that help pages and errors appear at once. options.py has the options that several commands share,
dataclass_options.py makes options from the fields of a dataclass, progress.py draws progress on the terminal, and
data_editing.py writes the sets of `data drop` and `data trim`.
"""
