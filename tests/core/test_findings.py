"""Findings: counted all, ten of each kept, the same row told once."""

from __future__ import annotations

from luthier.core.findings import SHOWN, Code, Findings

ERROR = Code("D901", "error", "a fault", "mend it")
WARNING = Code("D900", "warning", "a doubt", "look at it")


def test_all_are_counted_and_ten_kept() -> None:
    findings = Findings()
    for line in range(1, 14):
        findings.add(WARNING.at(f"a.jsonl:{line}"))
    findings.add(ERROR.at("a.jsonl"))
    assert (findings.errors, findings.warnings) == (1, 13)
    (first, one), (second, many) = findings.groups()
    assert ([f.code for f in first], one) == (["D901"], 1)
    assert (len(second), many) == (SHOWN, 13)


def test_a_row_that_two_checks_name_counts_once_and_a_file_each_time() -> None:
    findings = Findings()
    for place in ("a.jsonl:7", "a.jsonl:7", "a.jsonl:8", "hub/set:dev", "hub/set:dev"):
        findings.add(ERROR.at(place))
    assert findings.totals["D901"] == 4
    for line in range(100, 120):
        findings.add(ERROR.at(f"a.jsonl:{line}"))
        findings.add(ERROR.at(f"a.jsonl:{line}"))
    assert findings.totals["D901"] == 24


def test_words_and_plain_data() -> None:
    finding = ERROR.at("C:/rows/a.jsonl:7", "told of the row")
    assert str(finding) == "ERROR D901 C:/rows/a.jsonl:7  told of the row  (cure: mend it)"
    plain = finding.plain()
    assert (plain["file"], plain["line"], plain["cure"]) == ("C:/rows/a.jsonl", 7, "mend it")
    assert ERROR.at("a.jsonl").plain()["line"] is None
    assert str(WARNING.at("a:1")).startswith("WARN  D900 a:1  a doubt")
