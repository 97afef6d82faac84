"""What a run in stages writes about itself: figures, samples, one page, one model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from luthier.core.rundir import RunDir, write_json, write_lines, write_stage_list, write_text
from luthier.evaluation import stages_page
from luthier.evaluation.report_data import Contents, Fields, mapping, number, read
from luthier.evaluation.report_words import verdicts
from luthier.models.load import PAIR, read_note


def write_stages(folder: RunDir, stages: Sequence[RunDir]) -> None:
    """Writes the files of the whole; the model card last, as it makes the run finished.

    Args:
        folder: the folder of the whole, with recipe and environment.
        stages: the finished runs in it, in order; at least one.
    """
    whole, parts = read(folder), [read(stage) for stage in stages]
    write_stage_list(folder, stages)
    write_json(folder.evaluation, evaluation(parts))
    samples = joined_samples(parts)
    write_lines(folder.samples, samples)
    write_text(folder.report, stages_page.render(whole, parts, samples))
    write_text(folder.card, card(whole, parts, stages[-1]))


def evaluation(parts: Sequence[Contents]) -> Fields:
    """The last stage's figures as a single run has them, and beside them every stage's."""
    told = [
        {
            "name": part.name,
            "objective": stages_page.kind(part, "objective"),
            "method": stages_page.kind(part, "method"),
            **_figures(part),
        }
        for part in parts
    ]
    return {**_figures(parts[-1]), "stages": told}


def joined_samples(parts: Sequence[Contents]) -> list[Fields]:
    """The last stage's samples, with ``start``: what the first stage's model answered untrained.

    ``start`` is ``None`` where the first stage was not asked the same, or is the last itself.
    """
    first = {str(s.get("prompt")): s.get("before") for s in parts[0].samples}
    earlier = first if len(parts) > 1 else {}
    return [{**s, "start": earlier.get(str(s.get("prompt")))} for s in parts[-1].samples]


def card(whole: Contents, parts: Sequence[Contents], last: RunDir) -> str:
    """The model card as Markdown, with the YAML head that model hubs read."""
    adapter = (last.model / "adapter_config.json").is_file()
    kinds = list(dict.fromkeys(stages_page.kind(part, "objective") for part in parts))
    head: dict[str, Any] = {
        "library_name": "peft" if adapter else "transformers",
        "tags": ["luthier", *kinds],
    }
    model = mapping(whole.settings.get("model"))
    if model.get("name"):
        head["base_model"] = model["name"]
    steps = ", then ".join(
        f"{stages_page.kind(p, 'objective')} ({stages_page.kind(p, 'method')})" for p in parts
    )
    version = whole.environment.get("luthier", "")
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).strip(),
        "---",
        "",
        f"# {whole.name}",
        "",
        f"`{stages_page.origin(whole)}`, trained with Luthier {version} in {len(parts)} stages: "
        f"{steps}.",
        "The model is the last stage's; each stage folder is a run of its own.",
        "",
        *(line for part in parts for line in _stage_lines(part)),
        *_loading(f"{last.path.name}/model", read_note(last.model), adapter=adapter),
        "",
        "The chat template is saved with the tokenizer. The full recipe is `recipe.yaml`, the",
        "measurements are in `evaluation.json` and `report.html`.",
        "",
    ]
    return "\n".join(lines)


def _figures(part: Contents) -> Fields:
    found = part.evaluation or {}
    return {"rows": found.get("rows", 0), "metrics": mapping(found.get("metrics"))}


def _stage_lines(part: Contents) -> list[str]:
    lines = [f"## {part.name}", ""]
    rows = number((part.evaluation or {}).get("rows"))
    found = verdicts(part.evaluation)
    if found and rows is not None:
        lines += [
            f"Before and after this stage, on {rows:,.0f} held-out rows:",
            "",
            "| metric | before | after | difference (95 % interval) | p | |",
            "|---|---|---|---|---|---|",
        ]
        for v in found:
            change = v.difference if v.interval == "–" else f"{v.difference} ({v.interval})"
            cells = (v.label, v.before, v.after, change, v.p.removeprefix("p = "), v.word)
            lines.append(f"| {' | '.join(cells)} |")
    else:
        lines.append("No rows were held out, so nothing is known about how well it does.")
    lines.append("")
    for side, value in mapping(part.environment.get("data")).items():
        c = mapping(value)
        counts = [
            f"{found:,.0f} {noun}"
            for noun in ("rows", "examples", "tokens")
            if (found := number(c.get(noun))) is not None  # type: ignore[assignment]
        ]
        lines.append(f"- {side}: {', '.join(counts)}; fingerprint `{c.get('fingerprint', '–')}`")
    return [*lines, ""]


def _loading(model: str, note: Mapping[str, Any], *, adapter: bool) -> list[str]:
    task = "Seq2SeqLM" if PAIR in note else "CausalLM"
    name = f"AutoPeftModelFor{task}" if adapter else f"AutoModelFor{task}"
    return [
        "## Load",
        "",
        "```python",
        f"from {'peft' if adapter else 'transformers'} import {name}",
        "from transformers import AutoTokenizer",
        f'model = {name}.from_pretrained("{model}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{model}")',
        "```",
    ]
