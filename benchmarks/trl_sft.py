"""Supervised fine-tuning by Luthier and by TRL's SFTTrainer: useful tokens a second, and memory.

The same rows (Dolly), weights, adapter, learning rate and targets; each measurement is a process
of its own, in turn, so that none inherits another's memory or luck. A token is useful where it is
no padding. Luthier runs as `luthier.train` does it (`luthier compiled` with `training.compile`,
whose first steps, not counted, take a minute longer), TRL in five settings, its own best among
them:

    trl padded        its default collator
    trl grouped       rows of like length together (train_sampling_strategy=group_by_length)
    trl single        one row a micro-batch, so nothing is padded, gradients accumulated
    trl packed        packing=True (bfd): one pack a micro-batch, gradients accumulated
    trl packed wide   the same, all packs of a step laid end to end in one micro-batch

Before anything is measured, loss and gradient norm of one fixed step must agree between all of
them; else the script stops and writes nothing.

    pip install -e '.[bench]' -c constraints.txt
    LUTHIER_DATA=… python benchmarks/trl_sft.py --threads 2 --repeats 3
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# torch is imported by the workers alone: a child's peak memory begins at its parent's.

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "trl_sft.json"
OURS, COMPILED = "luthier", "luthier compiled"
THEIRS = ("trl padded", "trl grouped", "trl single", "trl packed", "trl packed wide")
VARIANTS = (OURS, COMPILED, *THEIRS)
LIBRARIES = ("luthier", "torch", "transformers", "peft", "accelerate", "trl", "datasets")
#: The Llama shape of SmolLM-135M.
SHAPE = {
    "vocab_size": 49_152,
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
}
TINY = {**SHAPE, "vocab_size": 4096, "hidden_size": 48, "num_hidden_layers": 2}
TINY |= {"num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 128}
LONGEST = 512
BATCH = 8
RANK = 16
RATE = 1e-4
BETAS = (0.9, 0.95)
#: How far loss and gradient norm may lie apart, relatively.
TOLERANCE = 1e-4


def main() -> None:
    """Prepares, compares one step, measures in turn, writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=12, help="of 8 rows, one pass over them")
    parser.add_argument("--skip", type=int, default=2, help="first steps that do not count")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="a tiny shape; writes no result")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    with tempfile.TemporaryDirectory(prefix="trl-sft-") as folder:
        options.folder = Path(folder)
        call(options, "prepare")
        data = json.loads((options.folder / "data.json").read_text(encoding="utf-8"))
        gate = {name: call(options, f"gate {name}") for name in options.only}
        check(gate)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.only}
        for _ in range(options.repeats):
            for name in options.only:
                runs[name].append(call(options, name))
    check_tokens(runs)
    found = summary(runs, gate, data, options)
    for line in table(found):
        print(line)
    if not options.quick:
        options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def call(options: argparse.Namespace, task: str) -> dict[str, Any]:
    """A task in a process of its own; its last line is its answer."""
    words = [sys.executable, __file__, "--worker", task, "--folder", str(options.folder)]
    words += ["--steps", str(options.steps), "--skip", str(options.skip)]
    words += ["--threads", str(options.threads)] + ["--quick"] * options.quick
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "LUTHIER_CACHE": str(options.folder / "cache"),
        "OMP_NUM_THREADS": str(options.threads),
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{task} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
    print(f"{task}: {json.dumps(answer)}", file=sys.stderr, flush=True)
    return answer


def check(gate: dict[str, dict[str, Any]]) -> None:
    """Everybody's loss and gradient norm of the same step, or the end."""
    first = next(iter(gate.values()))
    for name, found in gate.items():
        for figure in ("loss", "norm"):
            apart = abs(found[figure] / first[figure] - 1)
            if not apart <= TOLERANCE:
                sys.exit(f"{name}: {figure} differs by {apart:.1e}; nothing is measured: {gate}")


def check_tokens(runs: dict[str, list[dict[str, Any]]]) -> None:
    """Everybody saw the same number of useful tokens."""
    seen = {run["tokens_in_all"] for each in runs.values() for run in each}
    if len(seen) != 1:
        sys.exit(f"not the same rows: {seen} useful tokens")


def summary(
    runs: dict[str, list[dict[str, Any]]],
    gate: dict[str, dict[str, Any]],
    data: dict[str, Any],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Medians and ranges, with everything needed to judge them."""
    speeds = {name: [run["tokens_per_second"] for run in each] for name, each in runs.items()}
    return {
        "setting": {
            "shape": TINY if options.quick else SHAPE,
            "rows": options.steps * BATCH,
            "batch_size": BATCH,
            "longest": LONGEST,
            "lora_rank": RANK,
            "precision": "float32",
            "steps": options.steps,
            "steps_not_counted": options.skip,
            "repeats": options.repeats,
            "threads": options.threads,
            **data,
        },
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "machine": {"cpu": processor(), "cores": os.cpu_count(), "python": sys.version.split()[0]},
        "gate": gate,
        "systems": {
            name: {
                "tokens_per_second": round(statistics.median(speeds[name]), 1),
                "range": [round(min(speeds[name]), 1), round(max(speeds[name]), 1)],
                "peak_gb": round(statistics.median(run["peak_gb"] for run in each), 2),
                "before_gb": round(statistics.median(run["before_gb"] for run in each), 2),
                "runs": each,
            }
            for name, each in runs.items()
        },
    }


def table(found: dict[str, Any]) -> list[str]:
    """The systems as a Markdown table; ratios are Luthier's speed over theirs."""
    systems = found["systems"]
    ours = systems[OURS]["tokens_per_second"] if OURS in systems else None
    lines = [
        "| system | useful tokens/s | range | peak memory | of it before training | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in systems.items():
        speed, (low, high) = figures["tokens_per_second"], figures["range"]
        ratio = f"{ours / speed:.2f}" if ours else ""
        lines.append(
            f"| {name} | {speed:,.1f} | {low:,.1f} to {high:,.1f} | {figures['peak_gb']:.2f} GB "
            f"| {figures['before_gb']:.2f} GB | {ratio} |"
        )
    return lines


def processor() -> str:
    """The CPU's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def work(options: argparse.Namespace) -> None:
    """A task of :func:`call`."""
    gate, name = options.worker.startswith("gate "), options.worker.removeprefix("gate ")
    rows = BATCH if gate else options.steps * BATCH
    if name == "prepare":
        answer = prepare(options.folder, TINY if options.quick else SHAPE, rows)
    elif name in (OURS, COMPILED):
        answer = train_ours(options, rows, compiled=name == COMPILED)
    else:
        answer = train_trl(options, name.removeprefix("trl "), rows)
    print(json.dumps(answer))


def prepare(folder: Path, shape: dict[str, int], count: int) -> dict[str, Any]:
    """Tokenizer, weights, adapter and rows, the same for all; rows in text and in tokens."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig

    tokenizer = gpt2_tokenizer(shape["vocab_size"])
    torch.manual_seed(0)
    config = LlamaConfig(
        **shape,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder / "base")
    lora = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(model, lora)
    adapted.peft_config["default"].base_model_name_or_path = str(folder / "base")
    # Zero would leave half of the gradients zero, and the gate half blind.
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    adapted.save_pretrained(folder / "adapter", save_embedding_layers=False)
    for place in ("base", "adapter"):
        tokenizer.save_pretrained(folder / place)
    chosen = dolly(tokenizer, count)
    lengths = [len(each["input_ids"]) for each in chosen]
    learned = sum(sum(label >= 0 for label in each["labels"]) for each in chosen)
    (folder / "rows.json").write_text(json.dumps(chosen), encoding="utf-8")
    about = {
        "tokens": sum(lengths),
        "learned": learned,
        "median_length": statistics.median(lengths),
        "cut": sum(length == LONGEST for length in lengths),
    }
    (folder / "data.json").write_text(json.dumps(about), encoding="utf-8")
    return about


def gpt2_tokenizer(size: int) -> Any:
    """GPT-2's byte-level BPE with its first merges only, and an end-of-text token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    where = Path(os.environ["LUTHIER_DATA"]) / "gpt2_tokenizer"
    full = json.loads((where / "gpt2_vocab.json").read_text(encoding="utf-8"))
    # Ids follow the merges: 256 bytes, then one token a merge.
    vocabulary = {token: number for token, number in full.items() if number < size - 1}
    lines = (where / "gpt2_merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    merges = [tuple(line.split(" ")) for line in lines if line][: size - 1 - 256]
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=end, pad_token=end, model_max_length=2048
    )
    assert len(made) == size, (len(made), size)
    return made


def dolly(tokenizer: Any, count: int) -> list[dict[str, Any]]:
    """Rows of Dolly, drawn by seed, as text and as Luthier's own tokens and targets, cut to 512."""
    from luthier.core import kinds
    from luthier.core.records import Conversation, Origin, Turn
    from luthier.data.length import fit
    from luthier.data.template import TokenizerCodec

    folder = Path(os.environ["LUTHIER_DATA"]) / "dolly_small"
    text = (folder / "dolly_hhrlhf_train_small.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    random.Random(0).shuffle(rows)
    codec = TokenizerCodec(tokenizer, max_length=LONGEST)
    objective = kinds.build("objectives", kinds.config("objectives", "sft"))
    chosen: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        if len(chosen) == count:
            return chosen
        if not row["response"].strip():
            continue
        turns = (Turn("user", row["prompt"]), Turn("assistant", row["response"]))
        record = Conversation(Origin("dolly", number), turns)
        made = objective.encode(record, codec)
        pieces, _ = fit(made, LONGEST, "right", bos=tokenizer.bos_token_id)
        for piece in pieces:
            tokens = piece.segments[0].tokens.tolist()
            targets = piece.targets["lm"]
            labels = [-100] * len(tokens)
            for position, token in zip(targets["position"], targets["token"], strict=True):
                labels[int(position) + 1] = int(token)
            chosen.append({**row, "input_ids": tokens, "labels": labels})
    sys.exit(f"only {len(chosen)} rows fit, {count} were asked for")


def train_ours(options: argparse.Namespace, rows: int, *, compiled: bool) -> dict[str, Any]:
    """`luthier.train` on rows in memory; figures from events.jsonl."""
    import luthier
    from luthier.engine.loop import Loop

    before = [0.0]
    train = Loop.train

    def noted(loop: Loop) -> Any:
        before[0] = resident()
        return train(loop)

    Loop.train = noted  # type: ignore[method-assign]
    folder: Path = options.folder
    given = json.loads((folder / "rows.json").read_text(encoding="utf-8"))[:rows]
    recipe = {
        "model": str(folder / "adapter"),
        "method": {"kind": "lora", "rank": RANK},
        "data": {
            "train": [{key: row[key] for key in ("prompt", "response")} for row in given],
            "validation": 0,
            "max_length": LONGEST,
            "overlong": "right",
        },
        "training": {
            "epochs": 1,
            "batch_size": BATCH,
            "learning_rate": RATE,
            "betas": BETAS,
            "schedule": "constant",
            "warmup": 0,
            "precision": "float32",
            "device": "cpu",
            "threads": options.threads,
            "compile": compiled,
            "log_every": 1,
            "trackers": (),
        },
        "output": tempfile.mkdtemp(dir=folder),
    }
    run = luthier.train(recipe, quiet=True)
    steps = [event for event in run.events if event["kind"] == "step"]
    if rows == BATCH:
        return {"loss": steps[0]["loss"], "norm": steps[0]["grad_norm"]}
    seconds = [event["seconds"] for event in steps]
    tokens = [event["tokens"] for event in steps]
    return measured(seconds, tokens, options.skip, steps[-1]["loss"], before[0])


def train_trl(options: argparse.Namespace, variant: str, rows: int) -> dict[str, Any]:
    """`SFTTrainer` on the same tokens and labels."""
    import torch

    torch.set_num_threads(options.threads)
    import datasets
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    folder: Path = options.folder
    given = json.loads((folder / "rows.json").read_text(encoding="utf-8"))[:rows]
    kept = [{key: row[key] for key in ("input_ids", "labels")} for row in given]
    gate = rows == BATCH
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True)
    before, norm, loss = [0.0], [0.0], [0.0]
    seconds, tokens = [0.0], [0]
    steps: list[tuple[float, int]] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            before[0], seconds[0] = resident(), time.perf_counter()

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            loss[0] = 0.0

        def on_step_end(self, *_: Any, **__: Any) -> None:
            steps.append((time.perf_counter() - seconds[0], tokens[0]))

        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            if gate:
                gradients = [p.grad for p in model.parameters() if p.grad is not None]
                norm[0] = float(torch.nn.utils.get_total_norm(gradients))

    class Counted(SFTTrainer):
        def training_step(self, model: Any, inputs: Any, *args: Any, **named: Any) -> Any:
            mask = inputs.get("attention_mask")
            tokens[0] += inputs["input_ids"].numel() if mask is None else int(mask.sum())
            part = super().training_step(model, inputs, *args, **named)
            loss[0] += float(part)
            return part

    args = SFTConfig(
        output_dir=str(folder / "trl"),
        num_train_epochs=1,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        max_length=LONGEST,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_grad_norm=0.0 if gate else 1.0,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
        **setting(variant, [len(row["input_ids"]) for row in kept]),
    )
    Counted(
        model=model,
        args=args,
        train_dataset=datasets.Dataset.from_list(kept),
        processing_class=AutoTokenizer.from_pretrained(folder / "base"),
        callbacks=[Clock()],
    ).train()
    if gate:
        assert len(steps) == 1, "the gate is one step"
        return {"loss": loss[0], "norm": norm[0]}
    took, seen = [s for s, _ in steps], [t for _, t in steps]
    return measured(took, seen, options.skip, loss[0], before[0])


def setting(variant: str, lengths: list[int]) -> dict[str, Any]:
    """How a variant differs; packed steps hold as many tokens as the others on average."""
    # Packs as full as they can be: one step of the gate takes all of them, however they fall.
    packs = BATCH if len(lengths) == BATCH else round(sum(lengths) / len(lengths) * BATCH / LONGEST)
    per_step = max(1, packs)
    batch, accumulate = "per_device_train_batch_size", "gradient_accumulation_steps"
    return {
        "padded": {batch: BATCH},
        "grouped": {batch: BATCH, "train_sampling_strategy": "group_by_length"},
        "single": {batch: 1, accumulate: BATCH},
        "packed": {"packing": True, batch: 1, accumulate: per_step},
        "packed wide": {"packing": True, batch: per_step},
    }[variant]


def measured(
    seconds: list[float], tokens: list[int], skip: int, loss: float, before: float
) -> dict[str, Any]:
    """Speed after the first steps, peak and starting memory of this process."""
    took, seen = seconds[-1] - seconds[skip - 1], tokens[-1] - tokens[skip - 1]
    return {
        "tokens_per_second": seen / took,
        "tokens": seen,
        "tokens_in_all": tokens[-1],
        "seconds": took,
        "steps": len(seconds),
        "last_loss": loss,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "before_gb": before,
    }


def resident() -> float:
    """Memory of this process now, in GB."""
    import psutil

    return float(psutil.Process().memory_info().rss / 2**30)


def section(found: dict[str, Any]) -> str:
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
