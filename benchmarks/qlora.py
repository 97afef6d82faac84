"""QLoRA beside LoRA on a base in full: the same losses, at what memory.

Two measurements, each run in a process of its own:

- the curve: ``builtin:nano`` (sizes 256 and 640, whole blocks of 64) on the demo's support data,
  LoRA, QLoRA and QLoRA with a LoftQ start, same rank, rows, order and rate. The gate: at every
  validation QLoRA's loss is within 2 % of LoRA's, else the result is not written;
- the memory: a Llama of random weights whose size matters, loaded in float32 and in four bits, and
  trained for a few steps: bytes of the weights, peaks of the process above what its imports take.

    python benchmarks/qlora.py [--steps 150] [--output results.json] [--scratch FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"kind": "lora", "rank": 16},
    "qlora": {"kind": "qlora", "rank": 16},
    "qlora loftq": {"kind": "qlora", "rank": 16, "start": "loftq"},
}
#: Largest relative difference of two validation losses.
GATE = 0.02
SHAPE = {
    "hidden_size": 1024,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 2816,
    "vocab_size": 4096,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}


def main() -> int:
    """Measures, or with ``--child`` is one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        task = json.loads(given.child)
        print(json.dumps(curve(**task) if "data" in task else memory(**task)))
        return 0
    with tempfile.TemporaryDirectory(dir=given.scratch) as name:
        folder = Path(name)
        found = {"steps": given.steps, "curves": curves(folder, given.steps)}
        found["worst"] = worst = {
            name: max(
                abs(a / b - 1)
                for a, b in zip(each["losses"], found["curves"]["lora"]["losses"], strict=True)
            )
            for name, each in found["curves"].items()
        }
        if worst["qlora"] > GATE:
            print(f"QLoRA's losses differ from LoRA's by {worst['qlora']:.1%}: nothing measured")
            return 1
        found["memory"] = memories(folder)
    found["shape"], found["versions"] = SHAPE, versions()
    text = json.dumps(found, indent=2)
    print(text)
    if given.output:
        given.output.write_text(text + "\n", encoding="utf-8")
    return 0


def versions() -> dict[str, str]:
    """Of what computes."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "bitsandbytes", "peft", "transformers")}


def child(task: dict[str, Any]) -> Any:
    """A process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--child", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def curves(folder: Path, steps: int) -> dict[str, Any]:
    """Every method's validation losses."""
    from luthier.demo.support import write

    data = {side: str(path) for side, path in write(folder / "data").items()}
    return {
        name: child({"method": method, "data": data, "steps": steps, "output": str(folder / name)})
        for name, method in METHODS.items()
    }


def curve(method: dict[str, Any], data: dict[str, str], steps: int, output: str) -> dict[str, Any]:
    """One run's validation losses, and how far its merged export is from it."""
    import luthier
    from luthier.export import export

    recipe = {
        "model": "builtin:nano",
        "method": method,
        "data": {"train": data["train"], "validation": data["test"], "limit": 1200},
        "training": {
            "max_steps": steps,
            "learning_rate": 3e-3,
            "precision": "float32",
            "evaluate_every": max(1, steps // 6),
            "trackers": [],
            "threads": 1,
        },
        "evaluation": {"rows": 50, "samples": 8, "generate_rows": 8, "resamples": 100},
        "output": output,
    }
    run = luthier.train(recipe, quiet=True)
    events = list(run.events)
    made = export(run.path, "merged", f"{output}-merged", say=lambda _line: None)
    return {
        "losses": [e["loss"] for e in events if e["kind"] == "validation"],
        "seconds": events[-1].get("seconds") or max(e.get("seconds", 0) for e in events),
        "divergence": made.rounding.divergence if made.rounding else 0.0,
        "agreement": made.rounding.agreement if made.rounding else 1.0,
    }


def memories(folder: Path) -> dict[str, Any]:
    """Bytes of a model whose size matters, by method."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from luthier.models.load import BUILTIN

    base = folder / "base"
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **SHAPE)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(base)
    AutoTokenizer.from_pretrained(BUILTIN / "nano").save_pretrained(base)
    return {
        name: child({"kind": name, "base": str(base), "steps": 8}) for name in ("lora", "qlora")
    }


def memory(kind: str, base: str, steps: int) -> dict[str, Any]:
    """Weights, and the most anonymous memory above the imports': loading, and training.

    Pages of the model's file are left out, which the system may take back; float weights, which
    are read as such pages, are copied so that they count.
    """
    from luthier.core import kinds
    from luthier.data.batching import collate
    from luthier.models.language_model import CausalModel
    from luthier.models.load import count_parameters, load, weight_bytes
    from luthier.ops.quantized import library, peft

    library(), peft()
    watch = Watch()
    loaded = load(base, quantize=kind == "qlora")
    for parameter in loaded.model.module.parameters():
        if parameter.dtype == torch.float32:
            parameter.data = parameter.data.clone()
    loading = watch.peak()
    method = kinds.build("methods", kinds.config("methods", {"kind": kind, "rank": 16}))
    module = method.prepare(loaded.model.module)
    model = CausalModel(module)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad])
    batch = collate([_document(n) for n in range(2)])
    for _ in range(steps):
        model.nll(batch, model.hidden(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {
        "parameters": count_parameters(module)[1],
        "weights": weight_bytes(module),
        "peak_loading": loading,
        "peak_training": watch.peak(),
    }


class Watch:
    """The most anonymous memory of this process since it began to look."""

    def __init__(self) -> None:
        self._start = self._most = self._now()
        threading.Thread(target=self._look, daemon=True).start()

    def peak(self) -> int:
        """Bytes above where it began."""
        return self._most - self._start

    def _look(self) -> None:
        while True:
            self._most = max(self._most, self._now())
            time.sleep(0.005)

    def _now(self) -> int:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        [found] = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
        return int(found) * 1024


def section(found: dict[str, Any]) -> str:
    """The curves and the bytes as a part of the page of results."""
    lines = [
        "## QLoRA beside LoRA: the same losses, fewer bytes",
        "",
        f"The bundled model on the demo's data, rank 16, {found['steps']} steps, the same rows, "
        "order and rate, float32. Divergence is that of the merged model from the one that was "
        "trained, mean KL in nats a token; merging always goes into the base in full precision.",
        "",
        "| method | last validation loss | largest difference from LoRA's | divergence, merged |",
        "|---|---|---|---|",
    ]
    for name, each in found["curves"].items():
        apart = "—" if name == "lora" else f"{100 * found['worst'][name]:.2f} %"
        lines.append(f"| {name} | {each['losses'][-1]:.4f} | {apart} | {each['divergence']:.1e} |")
    some = next(iter(found["memory"].values()))
    lines += [
        "",
        f"A Llama of {some['parameters'] / 1e6:,.0f} million parameters, adapter included, 256 "
        "tokens a step; anonymous memory above what the imports take (`benchmarks/qlora.py`; why "
        "the peak falls by less than the weights: docs/log.md).",
        "",
        "| method | weights | peak, loading | peak, training |",
        "|---|---|---|---|",
        *(
            f"| {name} | "
            + " | ".join(
                f"{each[key] / 1e6:,.0f} MB" for key in ("weights", "peak_loading", "peak_training")
            )
            + " |"
            for name, each in found["memory"].items()
        ),
        "",
    ]
    return "\n".join(lines)


def _document(seed: int) -> Any:
    import numpy as np

    from luthier.core.records import Origin, causal_example

    tokens = np.random.default_rng(seed).integers(5, 4000, 128).tolist()
    return causal_example([(tokens, True)], Origin("made", seed + 1))


if __name__ == "__main__":
    sys.exit(main())
