"""Commands that find translations and judge them: mine, filter."""

from __future__ import annotations

COMMANDS = ()
