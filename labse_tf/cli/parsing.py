"""Parser of the commands: errors on one line with suggestions, defaults in the help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn


def show_default(value: Any) -> str:
    """Return a default value as the help shows it."""
    if value is None or isinstance(value, (list, tuple)) and not value:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    return str(value)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most similar, or `None` if none is similar."""
    import difflib

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


class DefaultsFormatter(argparse.HelpFormatter):
    """Formatter that adds the default to flags whose help does not state it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help
        switch = action.nargs == 0 and not isinstance(
            action, argparse.BooleanOptionalAction
        )
        if not text or not action.option_strings or action.required or switch:
            return text
        return text if "default" in text else f"{text} (default: {_shown(action)})"


def _shown(action: argparse.Action) -> str:
    return show_default(action.default).replace("%", "%%")


class GroupsFormatter(DefaultsFormatter, argparse.RawDescriptionHelpFormatter):
    """Formatter that also keeps the lines of the list of commands."""


class Parser(argparse.ArgumentParser):
    """Parser that names the nearest flag or command for a mistyped one.

    Without arguments, a parser with commands prints its help. Parsers of commands have
    the class of the parser to which they are added.
    """

    # Whether unknown flags are returned by `parse_known_args`, for another parser.
    passes_unknown = False

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", DefaultsFormatter)
        super().__init__(**settings)
        self._commands: Any = None

    def add_subparsers(self, **settings: Any) -> Any:
        """Add commands as the base class does, and note that this parser has some."""
        self._commands = super().add_subparsers(**settings)
        return self._commands

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Check commands and flags, then parse as the base class does."""
        words = list(sys.argv[1:] if args is None else args)
        if self._commands is None:
            if not self.passes_unknown:
                self._check_flags(words)
        elif words:
            self._check_command(words)
        else:
            self.print_help()
            self.exit(2)
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Print an error on one line and exit with status 2."""
        lists = "flags" if self._commands is None else "commands"
        self.exit(
            2, f"{self.prog}: {message}; `{self.prog} --help` lists the {lists}\n"
        )

    def _check_command(self, words: list[str]) -> None:
        """Exit if the first word that is not a flag is not a command."""
        first = next((n for n, w in enumerate(words) if not w.startswith("-")), None)
        self._check_flags(words[:first])
        known = self._commands.choices
        if first is None or words[first] in known:
            return
        similar = nearest(words[first], known)
        kind = str(self._commands.metavar).lower()
        self.error(
            f"unknown {kind}: expected {similar or 'one of ' + ', '.join(known)}. "
            f"Received: {words[first]}"
        )

    def _check_flags(self, words: list[str]) -> None:
        """Exit at the first word that looks like a flag and is unknown."""
        known = self._option_string_actions
        for word in words:
            if word == "--":
                return
            name = word.partition("=")[0]
            if " " in word or not name.startswith("-") or name in known:
                continue
            long = name.startswith("--")
            # A prefix is an abbreviation. `-output` would be read as `-o utput`.
            if (
                any(flag.startswith(name) for flag in known)
                if long
                else (f"-{name}" not in known)
            ):
                continue
            similar = nearest(name if long else f"-{name}", known)
            expected = similar or "a flag of this command"
            self.error(f"unknown flag: expected {expected}. Received: {name}")
