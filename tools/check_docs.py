"""Checks the documents: links lead somewhere, generated parts are fresh, figures name a script."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)(?:#[^)]*)?\)")
MAKE = re.compile(r"^\s*make ([a-z]+)", re.MULTILINE)


def main() -> int:
    """Prints every fault; the exit status is 1 where there is one."""
    documents = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
    faults = [fault for path in documents for fault in [*_links(path), *_targets(path)]]
    faults += _stale()
    for fault in faults:
        print(fault)
    print(f"{len(documents)} documents, {len(faults)} faults")
    return 1 if faults else 0


def _links(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    found = []
    for match in LINK.finditer(text):
        target = match.group(1)
        if "://" not in target and not (path.parent / target).exists():
            line = text[: match.start()].count("\n") + 1
            found.append(f"{path.relative_to(ROOT)}:{line}: no such file: {target}")
    return found


def _targets(path: Path) -> list[str]:
    """Every `make X` in a document is a target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    wanted = MAKE.findall(path.read_text(encoding="utf-8"))
    return [
        f"{path.relative_to(ROOT)}: the Makefile has no target '{name}'"
        for name in sorted(set(wanted))
        if not re.search(rf"^{name}:", makefile, re.MULTILINE)
    ]


def _stale() -> list[str]:
    """Pages that are made from the code say what the code says."""
    faults = []
    for page, tool in (("recipe", "write_recipe_page.py"), ("data", "write_data_page.py")):
        script = ROOT / "tools" / tool
        if subprocess.run([sys.executable, str(script), "--check"], check=False).returncode:
            faults.append(f"docs/{page}.md is stale: python tools/{tool}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
