"""The report page: says the verdict, survives what is missing, runs and fetches nothing."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from luthier.core.rundir import RunDir, write_json, write_lines
from luthier.evaluation import report

VOID = {"meta", "input", "br", "path"}


class Page(HTMLParser):
    """Elements, their attributes and the text of a page; tags must close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())


def page(run: RunDir) -> Page:
    return Page(report.render(run))


def evaluate(run: RunDir, metrics: dict[str, Any], rows: int = 240) -> str:
    write_json(run.evaluation, {"rows": rows, "metrics": metrics})
    return page(run).text


def test_the_first_words_are_the_verdict(full_run: RunDir) -> None:
    text = page(full_run).text
    sentence = "On 240 held-out rows, perplexity fell from 85 to 3.20."
    assert sentence in text
    assert "Lower is better, so this is an improvement." in text
    assert "about once in 10,000 tries" in text
    assert "Of all 3 measures: 1 better, 1 worse, 1 with no difference shown." in text
    for later in ("warmup <has> no effect", "Before and after", "Samples", "Recipe"):
        assert text.index(sentence) < text.index(later)


def test_warnings_come_before_everything_but_the_verdict(full_run: RunDir) -> None:
    text = page(full_run).text
    assert text.index("warmup <has> no effect") < text.index("Before and after")
    assert "not finished" not in text


def test_every_part_of_a_full_run_is_there(full_run: RunDir) -> None:
    found = page(full_run)
    for words in (
        "sft · lora",
        "−81.8",
        "p = 0.0001, lower is better",
        "no difference shown",
        "worse",
        "180,000",
        "1 min 30 s",
        "parameters, 0.400 % of all",
        "600 MB",
        "412,880",
        "equals the reference",
        "Empty",
        "今天",
        "shop.jsonl:12",
        "shop <support>.jsonl",
        "probe.threads",
        "Learning rate",
        "Gradient norm",
    ):
        assert words in found.text, words
    labels = [str(attrs.get("aria-label")) for tag, attrs in found.elements if tag == "svg"]
    assert any("Training: 4.90 at step 1" in label for label in labels)
    assert any("Validation" in label for label in labels)


def test_nothing_runs_and_nothing_is_fetched(full_run: RunDir) -> None:
    html = report.render(full_run)
    found = Page(html)
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for tag, attrs in found.elements:
        assert not {"src", "href", "srcset", "data", "action", "xlink:href"} & set(attrs), tag
        assert not [name for name in attrs if name.startswith("on")], tag
    assert not re.search(r"https?://|@import|url\(", html)
    assert ("meta", "Content-Security-Policy") in [
        (tag, attrs.get("http-equiv")) for tag, attrs in found.elements
    ]


HOSTILE = "</style></title></pre><script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def test_text_from_the_run_never_becomes_markup(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "<b>run")
    run.path.mkdir()
    run.recipe.write_text(f"model: 'x'\nnote: {HOSTILE}\n{HOSTILE}: 1\n", encoding="utf-8")
    write_json(run.environment, {HOSTILE: HOSTILE, "device": HOSTILE, "data": {HOSTILE: {}}})
    write_lines(
        run.events,
        [
            {"kind": "warning", "step": HOSTILE, "message": HOSTILE},
            {"kind": "step", "step": 1, "loss": 1.0, "terms": {HOSTILE: 1.0, "b": 2.0}},
        ],
    )
    fields = dict.fromkeys(("prompt", "reference", "before", "after", "origin"), HOSTILE)
    write_lines(run.samples, [fields])
    write_json(run.evaluation, {"rows": 5, "metrics": {HOSTILE: {"before": 1, "after": 2}}})
    html = report.render(run)
    assert "<script" not in html
    assert "<img" not in html
    found = Page(html)
    assert not {"script", "img", "b>run"} & {tag for tag, _ in found.elements}
    assert found.text.count("<script>alert(1)</script>") >= 9


NAMES = ("recipe", "environment", "events", "evaluation", "samples", "card")


@pytest.mark.parametrize(
    "missing", [gone for size in (1, 2, 6) for gone in combinations(NAMES, size)]
)
def test_any_file_may_be_missing(full_run: RunDir, missing: tuple[str, ...]) -> None:
    for name in missing:
        getattr(full_run, name).unlink()
    text = page(full_run).text
    said = {
        "recipe": "The folder holds no recipe",
        "environment": "recorded no environment",
        "events": "No training step has been logged",
        "evaluation": "This run has no evaluation",
        "samples": "This run has no samples",
        "card": "This run is not finished",
    }
    for name, words in said.items():
        assert (words in text) == (name in missing), name


def test_an_unfinished_run_says_how_far_it_came(full_run: RunDir) -> None:
    for path in (full_run.card, full_run.evaluation, full_run.samples):
        path.unlink()
    with full_run.events.open("a", encoding="utf-8") as stream:
        stream.write('{"kind": "step", "st')
    text = page(full_run).text
    assert "Training loss fell from 4.90 to 0.0708 in 180 steps." in text
    assert "whether the model got better is not known yet" in text
    assert "Its last logged step is 180." in text
    assert "1 line of events.jsonl cannot be read." in text


@pytest.mark.parametrize("broken", ["[1, 2]", "{", "null", "\xff", '"x"', "{}"])
def test_broken_files_do_not_break_the_page(full_run: RunDir, broken: str) -> None:
    for name in NAMES[:5]:
        getattr(full_run, name).write_bytes(broken.encode("latin-1"))
    assert "Luthier" in page(full_run).text


@pytest.mark.parametrize("value", [None, "x", [], {}, True, float("nan"), float("inf"), -1e300])
def test_odd_values_in_events_do_not_break_the_page(full_run: RunDir, value: Any) -> None:
    keys = ("step", "loss", "terms", "learning_rate", "grad_norm", "memory", "seconds", "skipped")
    lines = [{"kind": "step", "step": 3, "loss": 2.0} | {key: value} for key in keys]
    full_run.events.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    write_json(full_run.evaluation, {"rows": value, "metrics": {"perplexity": {"after": value}}})
    page(full_run)


def test_verdicts_in_words(full_run: RunDir) -> None:
    def fields(before: float | None, after: float, p: float | None) -> dict[str, Any]:
        difference = None if before is None else after - before
        return {
            "before": before,
            "after": after,
            "difference": difference,
            "interval": None,
            "p_value": p,
            "higher_is_better": True,
        }

    chance = evaluate(full_run, {"bleu": fields(20.0, 21.0, 0.2)})
    assert "BLEU rose from 20 to 21." in chance
    assert "do not show a difference" in chance
    worse = evaluate(full_run, {"token_accuracy": fields(0.5, 0.4, 0.001)})
    assert "token accuracy fell from 0.500 to 0.400." in worse
    assert "so the model got worse" in worse
    alone = evaluate(full_run, {"my_figure": fields(None, 0.4, None)})
    assert "the tuned model’s my figure is 0.400" in alone
    assert "not measured" in alone
    same = evaluate(full_run, {"bleu": fields(20.0, 20.0, 1.0)})
    assert "BLEU stayed the same" in same
    certain = evaluate(full_run, {"bleu": fields(20.0, 40.0, 0.0)})
    assert "so this is an improvement" in certain
    assert "p < 0.0001" in certain
    few = evaluate(full_run, {"bleu": fields(20.0, 40.0, 0.01)}, rows=12)
    assert "Only 12 held-out rows" in few


def test_warnings_that_repeat_are_said_once(full_run: RunDir) -> None:
    warning = {"kind": "warning", "step": 5, "message": "again and again"}
    write_lines(full_run.events, [warning | {"step": number} for number in (5, 6, 7)])
    text = page(full_run).text
    assert text.count("again and again") == 1
    assert "Step 5, and 2 more times" in text


def test_a_resumed_run_is_drawn_in_order_and_each_step_once(full_run: RunDir) -> None:
    logged = ((2, 4.0), (3, 9.0), (2, 4.5), (3, 3.0), (1, 5.5))
    lines = [{"kind": "step", "step": number, "loss": loss} for number, loss in logged]
    write_lines(full_run.events, lines)
    full_run.evaluation.unlink()
    assert "Training loss fell from 5.50 to 3 in 3 steps." in page(full_run).text


def test_the_same_run_makes_the_same_page_and_it_is_written(full_run: RunDir) -> None:
    path = report.write(full_run)
    assert path == full_run.report
    assert path.read_text(encoding="utf-8") == report.render(full_run)


def test_a_long_run_makes_a_page_that_opens(full_run: RunDir) -> None:
    lines = [
        {"kind": "step", "step": n, "loss": 1 + 1 / n, "learning_rate": 1e-4, "grad_norm": 1.0}
        for n in range(1, 30_001)
    ]
    write_lines(full_run.events, lines)
    html = report.render(full_run)
    assert len(html) < 600_000
    assert "each point is the mean of 75 logged steps" in html
