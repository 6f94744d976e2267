"""Offline training: data/ and losses/ feed strategies/, loop.py runs them over the tasks, evaluate.py and report/ say
what came of it. cli.py names every command; docs/architecture.md has the map of the modules. Imports nothing."""
