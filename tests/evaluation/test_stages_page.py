"""The files of a run in stages: figures, samples, the page, the card; one look at the whole."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from luthier.core.rundir import RunDir, read_lines, write_json, write_lines
from luthier.evaluation import report, stages_page
from luthier.evaluation.report_data import read
from luthier.evaluation.stages import write_stages

NAMES = ("1-language_modeling", "2-sft")


class Staged:
    """A run of two stages, the second a LoRA run; its files can be spoilt by a test."""

    def __init__(self, path: Path, model: RunDir) -> None:
        self.folder = RunDir(path)
        self.stages = [RunDir(path / name) for name in NAMES]
        for stage, method in zip(self.stages, ("full", "lora"), strict=True):
            shutil.copytree(model.path, stage.path)
            kind = stage.path.name.partition("-")[2]
            recipe = {"objective": {"kind": kind}, "method": {"kind": method}}
            stage.recipe.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        (self.stages[1].model / "adapter_config.json").write_text("{}", encoding="utf-8")
        self.change(0, perplexity={"before": 4100.0, "after": 85.0})
        whole = {"model": {"name": None, "architecture": "llama"}, "stages": [{}, {}]}
        self.folder.recipe.write_text(yaml.safe_dump(whole), encoding="utf-8")
        write_json(self.folder.environment, {"luthier": "0.1.0", "stages": True})

    def change(self, stage: int, **figures: Any) -> None:
        path = self.stages[stage].evaluation
        found = json.loads(path.read_text(encoding="utf-8"))
        for name, values in figures.items():
            found["metrics"][name] |= values
        write_json(path, found)

    def write(self) -> str:
        """Writes all files; returns the page's text."""
        write_stages(self.folder, self.stages)
        return Page(self.folder.report.read_text(encoding="utf-8")).text


class Page(HTMLParser):
    """Elements and text; tags must close in order."""

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
        if tag not in ("meta", "input", "br", "path"):
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


@pytest.fixture
def staged(tmp_path: Path, full_run: RunDir) -> Staged:
    return Staged(tmp_path / "whole", full_run)


def test_the_whole_is_finished_when_its_card_is_written(staged: Staged) -> None:
    finished = [staged.folder.finished]
    staged.write()
    assert json.loads(staged.folder.stage_list.read_text()) == {"stages": list(NAMES)}
    finished.append(staged.folder.finished)
    staged.stages[0].card.unlink()
    finished.append(staged.folder.finished)
    assert finished == [False, True, False]


def test_the_last_stages_figures_stand_where_a_single_runs_do(staged: Staged) -> None:
    staged.write()
    found = json.loads(staged.folder.evaluation.read_text())
    last = json.loads(staged.stages[1].evaluation.read_text())
    assert found["metrics"] == last["metrics"]
    assert found["rows"] == last["rows"]
    told = [(s["name"], s["objective"], s["method"]) for s in found["stages"]]
    assert told == [(NAMES[0], "language_modeling", "full"), (NAMES[1], "sft", "lora")]
    assert found["stages"][0]["metrics"]["perplexity"]["before"] == 4100.0


def test_the_page_says_the_verdict_and_both_stages(staged: Staged) -> None:
    text = staged.write()
    sentence = "In the last of 2 stages, on 240 held-out rows, perplexity fell from 85 to 3.20."
    assert sentence in text
    earlier = f"{NAMES[0]}: On 240 held-out rows, perplexity fell from 4,100 to 85 (better)."
    assert earlier in text
    for later in (earlier, "Before and after", "Training", "Samples", "Recipe"):
        assert text.index(sentence) < text.index(later)
    table = text[text.index("Before and after") : text.index("Training")]
    assert table.index(NAMES[0]) < table.index("4,100") < table.index(NAMES[1])
    assert "warmup <has> no effect" in text


def test_the_page_leads_to_each_stages_own_and_fetches_nothing(staged: Staged) -> None:
    for stage in staged.stages:
        report.write(stage)
    staged.write()
    html = staged.folder.report.read_text(encoding="utf-8")
    page = Page(html)
    links = [a["href"] for tag, a in page.elements if tag == "a"]
    assert links == [f"{name}/report.html" for name in NAMES]
    assert all((staged.folder.path / str(link)).is_file() for link in links)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.elements}
    assert not re.search(r"url\(|@import|https?://|src=", html)
    assert "default-src 'none'" in html


def test_samples_show_what_the_model_said_before_any_training(staged: Staged) -> None:
    first, last = (list(read_lines(stage.samples)) for stage in staged.stages)
    write_lines(staged.stages[0].samples, [first[0] | {"before": "zzz qq"}])
    write_lines(staged.stages[1].samples, [last[0], last[0] | {"prompt": "Another?"}])
    text = staged.write()
    joined = list(read_lines(staged.folder.samples))
    assert [sample["start"] for sample in joined] == ["zzz qq", None]
    assert text.count("Before any training") == 1
    assert text.count("Before the last stage") == 2
    assert "<script>alert('owned')</script>" in text  # as text: Page would have met the tag


def test_one_curve_over_all_stages_with_borders_between(staged: Staged) -> None:
    parts = [read(stage) for stage in staged.stages]
    chart = stages_page.loss_chart(parts)
    assert chart is not None
    assert [label for _, label in chart.legend] == ["Training", "Validation"]
    for view in chart.views:
        (border,) = (line for line in view.lines if line.style == "border")
        training = [line for line in view.lines if line.style == "train faint"]
        # The first stage's line ends on the border, the second's begins a step later.
        ends = [line.path.rpartition("L")[2].split()[0] for line in training]
        begins = [re.match(r"M([\d.]+)", line.path)[1] for line in training]  # type: ignore[index]
        assert ends == [border.path.split()[0].removeprefix("M"), "1000.0"]
        assert 0 < float(begins[1]) - float(ends[0]) < 1000 * 2 / 360
    titles = [band.title for band in chart.views[0].bands]
    assert titles[0] == "Step 1"
    assert titles[-1] == "Step 360"


def test_short_stages_keep_their_border_on_the_axis(staged: Staged) -> None:
    for stage in staged.stages:
        events = [e for e in read_lines(stage.events) if e["step"] <= 2]
        write_lines(stage.events, events)
    chart = stages_page.loss_chart([read(stage) for stage in staged.stages])
    assert chart is not None
    paths = [line.path for line in chart.views[0].lines if line.style == "border"]
    # Steps 1 to 4 on the axis; the border lies at step 2.
    assert paths == [f"M{1000 / 3:.1f} 0V1000"]
    assert stages_page.shares([read(stage) for stage in staged.stages]) == pytest.approx(
        [100 / 3, 200 / 3]
    )


def test_what_was_not_measured_is_said(staged: Staged) -> None:
    staged.stages[1].evaluation.unlink()
    staged.stages[1].samples.unlink()
    staged.stages[1].events.unlink()
    text = staged.write()
    assert "In the last of 2 stages, nothing was measured." in text
    assert "This stage was not evaluated" in text
    assert "The last stage has no samples." in text
    found = json.loads(staged.folder.evaluation.read_text())
    assert found["metrics"] == {}
    assert "No rows were held out" in staged.folder.card.read_text()


def test_the_card_says_what_hubs_read_and_how_to_load(staged: Staged) -> None:
    staged.write()
    text = staged.folder.card.read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "peft",
        "tags": ["luthier", "language_modeling", "sft"],
    }
    assert "`llama from scratch`" in body
    assert "language_modeling (full), then sft (lora)." in body
    assert 'AutoPeftModelForCausalLM.from_pretrained("2-sft/model")' in body
    for name in NAMES:
        assert f"## {name}" in body
