"""What checking data finds: coded, placed, counted, with a cure; ten examples kept of each code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]

#: Findings of one code that are spelled out; the rest are counted.
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Code:
    """A sort of finding.

    Attributes:
        name: ``D003``; never given to another sort.
        severity: an ``error`` refuses training, a ``warning`` does not.
        title: what is wrong, in a few words.
        cure: what to do about it.
    """

    name: str
    severity: Severity
    title: str
    cure: str

    def at(self, place: object, message: str = "", cure: str = "") -> Finding:
        """A finding of this sort; message and cure are the code's own unless given."""
        return Finding(
            self.name, self.severity, str(place), message or self.title, cure or self.cure
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        code: which sort, as ``D003``.
        severity: ``error`` or ``warning``.
        place: ``train.jsonl:718``; the file alone where it is about the whole of it.
        message: what is wrong there. Personal data and secrets are masked in it.
        cure: what to do about it.
    """

    code: str
    severity: Severity
    place: str
    message: str
    cure: str

    @property
    def head(self) -> str:
        """Severity, code and place: ``ERROR D003 train.jsonl:718``."""
        word = "ERROR" if self.severity == "error" else "WARN "
        return f"{word} {self.code} {self.place}"

    def __str__(self) -> str:
        tail = f"  (cure: {self.cure})" if self.cure else ""
        return f"{self.head}  {self.message}{tail}"

    def plain(self) -> dict[str, Any]:
        """For tools; ``line`` is ``None`` where a finding is about a whole file."""
        file, _, line = self.place.rpartition(":")
        numbered = bool(file) and line.isdigit()
        return {
            "code": self.code,
            "severity": self.severity,
            "file": file if numbered else self.place,
            "line": int(line) if numbered else None,
            "message": self.message,
            "cure": self.cure,
        }


class Findings:
    """Counts findings and keeps the first :data:`SHOWN` of each code.

    Attributes:
        totals: how often each code was found.
        rows: the codes found at each row's place, in the order found; ``None`` unless asked for,
            since it grows with what is found.
    """

    def __init__(self, *, by_row: bool = False) -> None:
        self.totals: Counter[str] = Counter()
        self.rows: dict[str, list[str]] | None = {} if by_row else None
        self._kept: dict[str, list[Finding]] = {}
        self._last: dict[str, str] = {}
        self._errors = 0

    def add(self, finding: Finding) -> None:
        """Notes a finding; the same code twice in a row at one line counts once."""
        kept = self._kept.setdefault(finding.code, [])
        numbered = finding.place.rpartition(":")[2].isdigit()
        if numbered and self._last.get(finding.code) == finding.place:
            return
        self._last[finding.code] = finding.place
        self.totals[finding.code] += 1
        self._errors += finding.severity == "error"
        if self.rows is not None and numbered:
            self.rows.setdefault(finding.place, []).append(finding.code)
        if len(kept) < SHOWN:
            kept.append(finding)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Findings:
        """The inverse of :meth:`plain`."""
        found = cls()
        for one in plain["findings"]:
            place = one["file"] if one["line"] is None else f"{one['file']}:{one['line']}"
            found.add(Finding(one["code"], one["severity"], place, one["message"], one["cure"]))
        found.totals.clear()
        found.totals.update(plain["totals"])
        found._errors = plain["errors"]
        return found

    @property
    def errors(self) -> int:
        """Findings that refuse training."""
        return self._errors

    @property
    def warnings(self) -> int:
        """Findings that do not."""
        return self.totals.total() - self._errors

    def groups(self) -> list[tuple[Sequence[Finding], int]]:
        """The examples kept of each code with how many there are: errors first, then by code."""
        ordered = sorted(
            self._kept.values(), key=lambda kept: (kept[0].severity != "error", kept[0].code)
        )
        return [(kept, self.totals[kept[0].code]) for kept in ordered]

    def plain(self) -> dict[str, Any]:
        """Totals and examples, for tools."""
        return {
            "errors": self.errors,
            "warnings": self.warnings,
            "totals": dict(sorted(self.totals.items())),
            "findings": [one.plain() for kept, _ in self.groups() for one in kept],
        }
