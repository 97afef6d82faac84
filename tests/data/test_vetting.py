"""The check before training: the same verdict as ``luthier data check --recipe``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import pytest
from tiny_runs import sums, tiny_recipe

import luthier
from luthier.assemble import assemble
from luthier.checking import check_recipe
from luthier.core import recipe as recipes
from luthier.core.errors import DataError
from luthier.core.findings import Findings
from luthier.data import vetting

LEAKED = [{"prompt": "New?", "response": "Yes, new."}, sums()[3]]
LONG = "the cat sat on the mat, and a small boat crossed the river before the night came"


def recipe(folder: Path, held: list[dict[str, Any]], **data: Any) -> recipes.Recipe:
    for name, rows in (("train", sums()), ("held", held)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    spec = {"train": str(folder / "train.jsonl"), "validation": str(folder / "held.jsonl"), **data}
    return recipes.load(tiny_recipe(folder / "run", data=spec))


def test_training_refuses_a_leak_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        luthier.train(recipe(tmp_path, LEAKED), quiet=True)
    first, last = refused.value.faults
    assert (first.code, first.place) == ("D040", f"{tmp_path / 'held.jsonl'}:2")
    assert "says the same as train.jsonl:4, which is in 'train'" in first.message
    assert "data.check=warn" in last.cure
    assert not (tmp_path / "run").exists()


def test_warn_says_it_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = luthier.train(recipe(tmp_path, LEAKED, check="warn"))
    assert run.finished
    assert f"ERROR D040 {tmp_path / 'held.jsonl'}:2" in capsys.readouterr().out


def test_off_looks_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vetting, "Checks", None)
    said: list[str] = []
    assemble(recipe(tmp_path, LEAKED, check="off"), said.append)
    assert not [line for line in said if "D040" in line]


def test_a_verdict_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = recipe(tmp_path, LEAKED, check="warn")
    first: list[str] = []
    again: list[str] = []
    assemble(asked, first.append)
    monkeypatch.setattr(vetting, "Checks", None)
    assemble(asked, again.append)
    found = [[line for line in lines if " D0" in line] for lines in (first, again)]
    assert found[0] == found[1] != []


CASES: dict[str, list[dict[str, Any]]] = {
    "near": [{"prompt": LONG, "response": "a"}, {"prompt": LONG, "response": "a b"}, *LEAKED],
    "many": [sums()[n] for n in range(20)],
    "characters": [{"prompt": "A <b>bold</b> one", "response": "it\u0007is jane@doe-mail.org"}],
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_is_found_as_by_the_check(tmp_path: Path, case: str) -> None:
    asked = recipe(tmp_path, CASES[case], check="warn")
    (report,) = check_recipe(asked)
    seen: list[Findings] = []
    settle = vetting.settle

    def kept(found: Findings, mode: Any, say: Any) -> None:
        seen.append(found)
        settle(found, mode, say)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("luthier.assemble.settle", kept)
        assemble(asked, lambda _line: None)
    totals = sum((found.totals for found in seen), start=type(seen[0].totals)())
    assert totals == report.findings.totals != {}
    plain = report.findings.plain()["findings"]
    assert [one for found in seen for one in found.plain()["findings"]] == plain


def test_what_cleaning_mends_is_found_by_neither(tmp_path: Path) -> None:
    said: list[str] = []
    asked = recipe(tmp_path, CASES["characters"], clean=["html", "unicode", "personal"])
    (report,) = check_recipe(asked)
    assert not report.findings.totals
    assemble(asked, said.append)
    assert not [line for line in said if line.startswith(("WARN", "ERROR"))]
    (dirty,) = check_recipe(recipe(tmp_path, CASES["characters"]))
    assert set(dirty.findings.totals) == {"D072", "D073", "D080"}


def test_tokens_beyond_the_embedding_are_refused_on_every_start(tmp_path: Path) -> None:
    """The second start finds the tokens made already, and what was found in them."""
    builders.tiny(vocab_size=40).save_pretrained(tmp_path / "model")
    builders.tokenizer().save_pretrained(tmp_path / "model")
    rows = {"train": sums(), "validation": 0.2}
    asked = {**tiny_recipe(tmp_path / "run", data=rows), "model": str(tmp_path / "model")}
    for _ in range(2):
        with pytest.raises(DataError) as refused:
            luthier.train(asked, quiet=True)
        assert refused.value.faults[0].code == "D036"


def test_findings_come_back_from_their_plain_form(tmp_path: Path) -> None:
    (report,) = check_recipe(recipe(tmp_path, CASES["many"]))
    plain = report.findings.plain()
    assert plain["totals"]["D040"] == 20
    back = Findings.of(json.loads(json.dumps(plain)))
    assert (back.plain(), back.errors, back.warnings) == (plain, 20, report.findings.warnings)
