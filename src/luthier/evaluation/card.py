"""The model card of a run: what it is, how it was made, how well it does, how to load it."""

from __future__ import annotations

import json
from typing import Any

import yaml

from luthier.core.rundir import RunDir, write_text
from luthier.evaluation.report_classes import majority
from luthier.models.embedder import HEAD
from luthier.models.heads import HEAD_FILE
from luthier.models.load import PAIR, read_note
from luthier.models.worlds import WORLDS


def write(run: RunDir) -> None:
    """Writes ``README.md``, the last file of a finished run."""
    write_text(run.card, render(run))


def render(run: RunDir) -> str:
    """The card as Markdown, with the YAML head that model hubs read."""
    recipe = yaml.safe_load(run.recipe.read_text(encoding="utf-8"))
    environment = json.loads(run.environment.read_text(encoding="utf-8"))
    adapter = (run.model / "adapter_config.json").is_file()
    base = recipe["model"]["name"] or f"{recipe['model']['architecture']} from scratch"
    objective, method = recipe["objective"]["kind"], recipe["method"]["kind"]
    head = {"library_name": "peft" if adapter else "transformers", "tags": ["luthier", objective]}
    if recipe["model"]["name"]:
        head["base_model"] = base
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).strip(),
        "---",
        "",
        f"# {run.path.name}",
        "",
        f"`{base}`, tuned with Luthier {environment['luthier']}: {objective}, {method}.",
        "",
        *_figures(run),
        "## Data",
        "",
        *_data(environment.get("data", {})),
        "",
        "## Load",
        "",
        "```python",
        *_loading(run, adapter),
        "```",
        "",
        *_kept(run),
        "The full recipe is `recipe.yaml`, the measurements are in `evaluation.json` and",
        "`report.html`.",
        "",
    ]
    return "\n".join(lines)


def _figures(run: RunDir) -> list[str]:
    if not run.evaluation.is_file():
        return ["No rows were held out, so nothing is known about how well it does.", ""]
    found = json.loads(run.evaluation.read_text(encoding="utf-8"))
    lines = [
        f"## Before and after, on {found['rows']:,} held-out rows",
        "",
        "| metric | before | after | difference (95 % interval) | p |",
        "|---|---|---|---|---|",
    ]
    for name, f in found["metrics"].items():
        interval = f["interval"]
        change = (
            f"{f['difference']:+.4g} ({interval[0]:+.4g} to {interval[1]:+.4g})" if interval else ""
        )
        p = "" if f["p_value"] is None else f"{f['p_value']:.4f}"
        lines.append(f"| {name} | {_cell(f['before'])} | {_cell(f['after'])} | {change} | {p} |")
    if baseline := majority(found):
        lines += ["", baseline]
    return [*lines, ""]


def _data(data: dict[str, Any]) -> list[str]:
    return [
        f"- {side}: {c['rows']:,} rows, {c['examples']:,} examples, {c['tokens']:,} tokens "
        f"({c['targets']:,} learned); fingerprint `{c['fingerprint']}`"
        for side, c in data.items()
    ]


def _loading(run: RunDir, adapter: bool) -> list[str]:
    head = read_note(run.model).get("head")
    if (run.model / HEAD_FILE).is_file():
        assert head is not None
        return _loading_pooled(adapter, head["pooling"], deep=head.get("hidden") is not None)
    if head is not None and head["kind"] == HEAD:
        return _loading_sentences(adapter, head["pooling"])
    if head is not None and head.get("parts"):
        return [
            "import luthier",
            'model = luthier.open("model")',
            'model.predict(["a text"])  # what every task says, by name',
        ]
    plain = "Seq2SeqLM" if PAIR in read_note(run.model) else "CausalLM"
    task = plain if head is None else WORLDS[head["kind"]].auto
    model = f"AutoPeftModelFor{task}" if adapter else f"AutoModelFor{task}"
    more = f", num_labels={len(head['labels'])}" if adapter and head and head["labels"] else ""
    if adapter and task == "MaskedLM":  # peft has no class of that name
        return [
            "from peft import PeftConfig, PeftModel",
            "from transformers import AutoModelForMaskedLM, AutoTokenizer",
            'base = PeftConfig.from_pretrained("model").base_model_name_or_path',
            "base = AutoModelForMaskedLM.from_pretrained(base)",
            'model = PeftModel.from_pretrained(base, "model")',
            'tokenizer = AutoTokenizer.from_pretrained("model")',
        ]
    library = "peft" if adapter else "transformers"
    return [
        f"from {library} import {model}",
        "from transformers import AutoTokenizer",
        f'model = {model}.from_pretrained("model"{more})',
        'tokenizer = AutoTokenizer.from_pretrained("model")',
    ]


def _loading_pooled(adapter: bool, pooling: str, *, deep: bool) -> list[str]:
    """A head on pooled states, which no class of transformers has."""
    model = "AutoPeftModelForFeatureExtraction" if adapter else "AutoModel"
    pick = {"mean": "mean(1)", "first": "[:, 0]", "last": "[:, -1]"}[pooling]
    library, last = "peft" if adapter else "transformers", "2." if deep else ""
    return [
        f"from {library} import {model}",
        "from safetensors.torch import load_file",
        *(["from torch.nn.functional import gelu"] if deep else []),
        "from transformers import AutoTokenizer",
        f'trunk = {model}.from_pretrained("model").eval()',
        'tokenizer = AutoTokenizer.from_pretrained("model")',
        f'head = load_file("model/{HEAD_FILE}")',
        'tokens = tokenizer("a text", return_tensors="pt")',
        f"pooled = trunk(**tokens).last_hidden_state{'.' if '(' in pick else ''}{pick}",
        *(['pooled = gelu(pooled @ head["0.weight"].T + head["0.bias"])'] if deep else []),
        f'logits = pooled @ head["{last}weight"].T + head["{last}bias"]',
    ]


def _loading_sentences(adapter: bool, pooling: str) -> list[str]:
    """A sentence encoder; whole, it is one of sentence-transformers' as well."""
    if not adapter:
        return [
            "from sentence_transformers import SentenceTransformer",
            'model = SentenceTransformer("model")',
            'vectors = model.encode(["a text", "another one"])',
        ]
    return [
        "from peft import AutoPeftModelForFeatureExtraction",
        "from transformers import AutoTokenizer",
        'trunk = AutoPeftModelForFeatureExtraction.from_pretrained("model").eval()',
        'tokenizer = AutoTokenizer.from_pretrained("model")',
        f"# a text's vector: its last hidden states, pooled: {pooling}",
    ]


def _kept(run: RunDir) -> list[str]:
    head = read_note(run.model).get("head")
    pair = read_note(run.model).get(PAIR)
    if pair is not None:
        template = pair["template"]
        shown = "as it stands" if template is None else f"as `{template}`"
        return [f"The encoder reads a source {shown}.", ""]
    if head is None:
        return ["The chat template is saved with the tokenizer.", ""]
    if head["kind"] == HEAD:
        said = "Its answer is a vector: `luthier.embed.Embedder` and sentence-transformers ask it."
        return [said, ""]
    if head.get("parts"):
        made = [f"`{p['name']}` ({p['kind'].replace('_', ' ')})" for p in head["parts"]]
        return [f"Tasks on one trunk, each with a head of its own: {', '.join(made)}.", ""]
    if not head["labels"]:
        return ["It fills in masked tokens, and can be tuned further.", ""]
    names = ", ".join(f"`{name}`" for name in head["labels"][:12])
    more = len(head["labels"]) - 12
    if head["labels"] in (["reward"], ["correct"]):
        return ["It says what an answer is worth: `luthier score`, `luthier.score.Scorer`.", ""]
    if head["problem_type"] == "regression":
        return ["It gives one number.", ""]
    return [f"Classes, in order: {names}{f' and {more} more' if more > 0 else ''}.", ""]


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
