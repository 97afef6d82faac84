"""Rows to tokens, beside `datasets.map`: first start and second, one process and several.

    python benchmarks/preparing.py [--rows 100000] [--repeats 3] [--output preparing.json]

Both read the same JSON lines (invented rows in the shape of Dolly's), render them with the same
chat template and put them through the same fast tokenizer, in processes of their own with cold
caches of their own; a second start finds what the first one kept. Times count from the end of the
imports and of loading the tokenizer. `datasets.map` is batched and gives token ids and nothing
else; Luthier also finds the answer's span and writes what is learned. No rows are held out, and
the check before training, which the other side has not, is left out. The run is rejected if any
token id differs. Both sides alternate, and the ratio is one of medians.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from second_start import write

RESULTS = Path(__file__).resolve().parent / "results"
PROCESSES = (1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scratch", help="folder for rows and caches; a temporary one if unset")
    parser.add_argument("--output", default="preparing.json")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        side, path, processes = asked.child
        print("\n" + json.dumps(SIDES[side](path, int(processes))))
        return
    with tempfile.TemporaryDirectory(dir=asked.scratch) as folder:
        path = Path(folder, "rows.jsonl")
        write(path, asked.rows)
        time.sleep(2.5)  # a file that was written just now is not taken for known
        megabytes = round(path.stat().st_size / 1e6, 1)
        runs = [measured(path, asked.repeats, count) for count in PROCESSES]
    assert len({each["ids"] for found in runs for side in found.values() for each in side}) == 1, (
        "token ids differ"
    )
    result = {
        "rows": asked.rows,
        "megabytes": megabytes,
        "tokens": runs[0]["luthier"][0]["tokens"],
        **{f"processes {n}": figures(each) for n, each in zip(PROCESSES, runs, strict=True)},
        "datasets": metadata.version("datasets"),
        "tokenizers": metadata.version("tokenizers"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    place = RESULTS / asked.output
    place.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def measured(path: Path, repeats: int, processes: int) -> dict[str, list[dict[str, Any]]]:
    """Starts of both sides in turn, each pair of a first and a second on a cache of its own."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        for side, starts in found.items():
            with tempfile.TemporaryDirectory(dir=path.parent) as cache:
                first = start(side, path, processes, cache)
                second = start(side, path, processes, cache)
                assert first["ids"] == second["ids"]
                starts.append({**first, "second": second["seconds"]})
    return found


def start(side: str, path: Path, processes: int, cache: str) -> dict[str, Any]:
    environment = {**os.environ, "LUTHIER_CACHE": cache, "HF_HOME": cache}
    words = [sys.executable, __file__, "--child", side, str(path), str(processes)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def figures(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians and spreads, and how many times faster Luthier is."""
    result: dict[str, Any] = {}
    for name, key in (("first", "seconds"), ("second", "second")):
        sides = {side: [each[key] for each in starts] for side, starts in found.items()}
        middle = {side: statistics.median(values) for side, values in sides.items()}
        result[name] = {
            **{
                side: {
                    "seconds": round(middle[side], 3),
                    "least": round(min(values), 3),
                    "most": round(max(values), 3),
                }
                for side, values in sides.items()
            },
            "ratio": round(middle["datasets"] / middle["luthier"], 2),
        }
    return result


def luthier(path: str, processes: int) -> dict[str, Any]:
    """Both sides read and put into tokens, as `luthier train` does."""
    from luthier.core import kinds
    from luthier.core.recipe import DataSpec
    from luthier.data.prepare import encode
    from luthier.data.sides import known_parts
    from luthier.data.template import TokenizerCodec

    spec = DataSpec(train=path, validation=0, workers=processes)
    objective = kinds.build("objectives", kinds.config("objectives", "sft"))
    codec = TokenizerCodec(tokenizer(), max_length=2048)
    said: list[str] = []
    begun = time.perf_counter()
    train, _ = known_parts(spec, objective, 0, said.append)
    examples = encode(train, spec, objective, codec).examples
    seconds = time.perf_counter() - begun
    digest = hashlib.sha256(examples.arrays["tokens"].astype("<i4").tobytes())
    digest.update(examples.sizes.astype("<i8").tobytes())
    return {"seconds": seconds, "ids": digest.hexdigest(), "tokens": examples.tokens}


def other(path: str, processes: int) -> dict[str, Any]:
    """The same by `datasets.load_dataset` and `map`, batched."""
    import datasets
    import numpy as np

    datasets.disable_progress_bars()
    fast = tokenizer()

    def encode(rows: dict[str, list[str]]) -> dict[str, Any]:
        talks = [
            [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
            for asked, said in zip(rows["prompt"], rows["response"], strict=True)
        ]
        texts = fast.apply_chat_template(talks, tokenize=False)
        return {"input_ids": fast(texts, add_special_tokens=False)["input_ids"]}

    begun = time.perf_counter()
    rows = datasets.load_dataset("json", data_files=path, split="train")
    made = rows.map(
        encode,
        batched=True,
        remove_columns=rows.column_names,
        num_proc=processes if processes > 1 else None,
    )
    seconds = time.perf_counter() - begun
    columns = [chunk.combine_chunks() for chunk in [made.data.column("input_ids")]]
    lists = columns[0]
    ids = lists.values.to_numpy() if hasattr(lists, "values") else lists.flatten().to_numpy()
    sizes = np.diff(lists.offsets.to_numpy())
    digest = hashlib.sha256(ids.astype("<i4").tobytes())
    digest.update(sizes.astype("<i8").tobytes())
    return {"seconds": seconds, "ids": digest.hexdigest(), "tokens": len(ids)}


def tokenizer() -> Any:
    """The bundled model's, with its own template."""
    from luthier.models.load import locate, tokenizer_at

    return tokenizer_at(locate("builtin:nano", weights=False))


SIDES = {"luthier": luthier, "datasets": other}

if __name__ == "__main__":
    main()
