"""What the console script runs: a function per command, its parameters the options (cli.py names them)."""
