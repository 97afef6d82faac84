"""Writes the table of codes in docs/data.md from the checks themselves.

python tools/write_data_page.py [--check]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from luthier.data.check import codes

PAGE = Path(__file__).resolve().parent.parent / "docs" / "data.md"
_TABLE = re.compile(r"(?<=<!-- codes -->\n).*?(?=<!-- end of codes -->)", re.DOTALL)


def table() -> str:
    """Errors, then warnings, a row a code."""
    rows = ["", "| code | | what it finds | cure |", "|---|---|---|---|"]
    for code in sorted(codes(), key=lambda c: (c.severity, c.name)):
        rows.append(f"| {code.name} | {code.severity} | {code.title} | {code.cure} |")
    return "\n".join([*rows, "", ""])


def main() -> int:
    """Writes the page; with ``--check`` only says whether it is fresh."""
    text = PAGE.read_text(encoding="utf-8")
    fresh = _TABLE.sub(lambda _: table(), text)
    if "--check" in sys.argv:
        return 0 if fresh == text and "| D001 |" in text else 1
    PAGE.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
