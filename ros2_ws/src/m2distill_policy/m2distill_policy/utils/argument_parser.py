"""The argument parser of every command: one style of help, and errors of one line with the nearest allowed name."""

import argparse
import difflib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from m2distill_policy.errors import UserError, unknown_name

MAX_WIDTH = 100  # columns of a help page
KINDS: dict[Any, str] = {int: "a whole number", float: "a number"}
METAVARS = {int: "N", float: "X", Path: "PATH"}


class HelpFormatter(argparse.HelpFormatter):
    """Wraps paragraphs one by one, and states the default of every option that has one."""

    def __init__(self, prog: str, **options: Any):
        columns = shutil.get_terminal_size().columns  # $COLUMNS, else the terminal's
        options.setdefault("width", min(columns, MAX_WIDTH) - 2)
        super().__init__(prog, max_help_position=32, **options)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n\n")
        return "\n\n".join(
            p if p.startswith("  ") else super(HelpFormatter, self)._fill_text(p, width, indent) for p in paragraphs
        )

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.required and action.option_strings:
            return f"{text} (required)"
        default = default_text(action)
        return f"{text} (default: {default.replace('%', '%%')})" if default else text

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if action.nargs in (argparse.ONE_OR_MORE, argparse.ZERO_OR_MORE):
            (metavar,) = self._metavar_formatter(action, default_metavar)(1)
            return f"{metavar} ..."
        return super()._format_args(action, default_metavar)


def default_text(action: argparse.Action) -> str:
    """The default of an option as a user would write it; empty for none, for False and for what the help explains."""
    value = action.default
    if value is None or value is argparse.SUPPRESS or "default:" in (action.help or ""):
        return ""
    if isinstance(value, bool):
        return "" if action.nargs == 0 else str(value).lower()
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value)


def truth(text: str) -> bool:
    """Read `true` or `false`. Raises ValueError."""
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


class Parser(argparse.ArgumentParser):
    """A parser for one command. Errors are raised as UserError.

    Args:
        prog: the words that start the command, as in `m2distill import bag`.
        description: paragraphs, separated by empty lines.
        examples: complete command lines; a line that begins with `#` explains the next one.
        words: the arguments that will be parsed, for options whose defaults depend on another option.
    """

    def __init__(
        self, prog: str, description: str = "", examples: Sequence[str] = (), words: Sequence[str] = (), **options: Any
    ):
        example = "\n".join(f"  {line}" for line in examples)
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"example{'s' * (len(examples) > 1)}:\n\n{example}" if examples else None,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
            add_help=False,
            **options,
        )
        self.words = list(words)
        self.add_argument("-h", "--help", action="help", help="show this page")

    # argparse's own signature is wider than what the commands use
    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        add_metavar(names, options)
        return super().add_argument(*names, **options)

    def add_switch(self, *names: str, default: bool, help: str) -> argparse.Action:
        """An option that is set by its name alone, or by `true` or `false` after it.

        Only for commands without positional arguments: the word after the option is taken as its value.
        """
        return self.add_argument(
            *names, nargs="?", const=True, default=default, type=truth, metavar="true|false", help=help
        )

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        words = [self._declared(word) for word in (self.words if args is None else args)]
        self._check_options(words)
        options, rest = self.parse_known_args(words, namespace)
        if rest:
            self.error(f"unexpected argument {rest[0]!r}")
        return options

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} ({self.prog} --help lists the options)")

    def format_usage(self) -> str:
        return f"usage: {self._usage_line()}\n"

    def format_help(self) -> str:
        self.usage = self._usage_line().replace("%", "%%")
        return super().format_help()

    def _usage_line(self) -> str:
        """The positional arguments and required options; everything else is `[options]`."""
        formatter = self._get_formatter()
        parts = [self.prog]
        for action in self._actions:
            if not action.option_strings:
                text = formatter._format_args(action, action.dest)
                parts.append(f"[{text}]" if action.nargs in ("*", "?") else text)
        for action in self._actions:
            if action.option_strings and action.required:
                parts.append(f"{action.option_strings[0]} {formatter._format_args(action, action.dest.upper())}")
        return " ".join([*parts, "[options]"])

    def _declared(self, word: str) -> str:
        """`--budget_unit` is accepted for `--budget-unit`."""
        name, equals, value = word.partition("=")
        if word.startswith("--") and name not in self._option_string_actions:
            dashed = name.replace("_", "-")
            return f"{dashed}{equals}{value}" if dashed in self._option_string_actions else word
        return word

    def _check_options(self, words: Iterable[str]) -> None:
        """Raise UserError for an option that does not exist, before anything that is missing is reported."""
        for word in words:
            if word == "--":
                return
            name = word.partition("=")[0]
            if name.startswith("--") and name not in self._option_string_actions:
                near = difflib.get_close_matches(name, self._option_string_actions, n=1)
                self.error(f"unknown option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError:
            expected = "true or false" if action.type is truth else KINDS.get(action.type, "another value")
            raise argparse.ArgumentError(None, f"{_name(action)} is {arg_string!r}, expected {expected}") from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(None, unknown_name(action.dest.replace("_", " "), str(value), action.choices))


def add_metavar(names: Sequence[str], options: dict[str, Any]) -> None:
    """Choose the placeholder of an option's value by its type."""
    if options.get("action", "store") != "store" or "metavar" in options:
        return
    if choices := options.get("choices"):
        options["metavar"] = "{" + ",".join(choices) + "}"
    elif options.get("type") in METAVARS and names[0].startswith("-"):
        options["metavar"] = METAVARS[options["type"]]
    elif not names[0].startswith("-"):
        options["metavar"] = names[0].upper()
    else:
        options["metavar"] = options.get("dest", names[0].lstrip("-")).split(".")[-1].replace("-", "_").upper()


def _name(action: argparse.Action) -> str:
    return action.option_strings[0] if action.option_strings else str(action.metavar or action.dest)
