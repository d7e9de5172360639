"""What a check of a SavedModel found: read by people, and as JSON by programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table

STATUSES = ("ok", "warn", "fail", "skip")
_COLORS = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


class Check(NamedTuple):
    """What was found at one point: `status` is ok, warn, fail or skip."""

    name: str
    status: str
    detail: str


@dataclass(frozen=True)
class ConformanceReport:
    """What `check_saved_model` found; `print(report)` shows it.

    Attributes:
        path: The SavedModel.
        interface: `text`, `preprocessor` or `encoder`.
        checks: In the order of the contract.
        measurements: Numbers, where they could be had: `milliseconds`, of one
            sentence; `bytes`, on disk; `parameters`; `trainable_parameters`;
            `dimensions`; `short_length` and `long_length`, the tokens that rows of one
            and of 60 words are padded to.

    Example:
    >>> report = ConformanceReport(
    ...     "model", "text", (Check("outputs", "ok", "default float32 (B, 16)"),)
    ... )
    >>> print(report)
    model: text
    ok    outputs  default float32 (B, 16)
    passed: 1 ok
    """

    path: str
    interface: str
    checks: tuple[Check, ...]
    measurements: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether no check failed; warnings do not count."""
        return not self.names("fail")

    def names(self, status: str) -> list[str]:
        """The names of the checks that ended so.

        Args:
            status: One of `STATUSES`.

        Returns:
            In their order.
        """
        return [check.name for check in self.checks if check.status == status]

    def summary(self) -> str:
        """One line: how many checks ended how."""
        counts = [f"{len(self.names(s))} {s}" for s in STATUSES if self.names(s)]
        return ("passed: " if self.passed else "failed: ") + ", ".join(counts)

    def __str__(self) -> str:
        """The report as plain text, a check a line."""
        width = max((len(check.name) for check in self.checks), default=0)
        lines = [
            f"{check.status:4}  {check.name:{width}}  {check.detail}"
            for check in self.checks
        ]
        return "\n".join([f"{self.path}: {self.interface}", *lines, self.summary()])

    def table(self) -> Table:
        """The report as a table of rich, in colours where the terminal has them."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"{self.path}: {self.interface}", caption=self.summary())
        table.add_column("check", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("what was found", overflow="fold")
        for check in self.checks:
            status = Text(check.status, _COLORS[check.status])
            table.add_row(check.name, status, Text(check.detail))
        return table

    def to_dict(self) -> dict[str, Any]:
        """What a JSON file holds."""
        return {
            "path": self.path,
            "interface": self.interface,
            "passed": self.passed,
            "checks": [check._asdict() for check in self.checks],
            "measurements": dict(self.measurements),
        }
