"""Results of a SavedModel check, as a table and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table

STATUSES = ("ok", "warn", "fail", "skip")
_COLORS = {"ok": "green", "warn": "yellow", "fail": "bold red", "skip": "dim"}


class Check(NamedTuple):
    """Result of one check; `status` is one of `STATUSES`."""

    name: str
    status: str
    detail: str


@dataclass(frozen=True)
class ConformanceReport:
    """Report of `check_saved_model`. `print(report)` prints all results.

    Attributes:
        path: The SavedModel.
        interface: `text`, `preprocessor` or `encoder`.
        checks: The results.
        measurements: Numbers that could be measured: `milliseconds` for one sentence;
            `bytes` on disk; `parameters`; `trainable_parameters`; `dimensions`;
            `short_length` and `long_length`, the padded lengths in tokens of rows with
            one and with 60 words.

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
        """Whether no check failed. Warnings do not count."""
        return not self.names("fail")

    def names(self, status: str) -> list[str]:
        """Return the names of the checks with a status."""
        return [check.name for check in self.checks if check.status == status]

    def summary(self) -> str:
        """Return the number of checks per status in one line."""
        counts = [f"{len(self.names(s))} {s}" for s in STATUSES if self.names(s)]
        return ("passed: " if self.passed else "failed: ") + ", ".join(counts)

    def __str__(self) -> str:
        """Return the report as plain text, one line per check."""
        width = max((len(check.name) for check in self.checks), default=0)
        lines = [
            f"{check.status:4}  {check.name:{width}}  {check.detail}"
            for check in self.checks
        ]
        return "\n".join([f"{self.path}: {self.interface}", *lines, self.summary()])

    def table(self) -> Table:
        """Return the report as a table of rich."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"{self.path}: {self.interface}", caption=self.summary())
        table.add_column("check", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("result", overflow="fold")
        for check in self.checks:
            status = Text(check.status, _COLORS[check.status])
            table.add_row(check.name, status, Text(check.detail))
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "path": self.path,
            "interface": self.interface,
            "passed": self.passed,
            "checks": [check._asdict() for check in self.checks],
            "measurements": dict(self.measurements),
        }
