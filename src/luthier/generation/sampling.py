"""Batched sampling and streaming, through transformers' own generation and KV cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import torch
from torch import Tensor

#: What a decoder puts for the first bytes of a character that more tokens will complete.
_UNFINISHED = "\ufffd"


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        max_new_tokens: longest answer.
        temperature: 0 takes the most likely token; above, the distribution is flattened.
        top_p: smallest set of tokens with this probability (Holtzman et al. 2020,
            arXiv 1904.09751).
        top_k: most likely tokens to choose from; 0 for all.
        min_p: tokens at least so likely, as a share of the likeliest.
        repetition_penalty: above 1 makes what was said less likely.
        stop: strings that end an answer; they are left out of it.
        seed: of the draws.
        num_beams: above 1, beam search: so many beginnings are kept at every step, and the answer
            is the one with the highest ``sum(log p) / length ** length_penalty`` (Wu et al. 2016,
            arXiv 1609.08144, without its constants).
        length_penalty: above 0 favours longer answers, below 0 shorter ones.
        early_stopping: whether beam search ends with as many whole answers as beams, though a
            beginning might still become better.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False


class Sampler:
    """Answers prompts with a model.

    Only :class:`Sampling` says how: what a model's own ``generation_config.json`` prefers (beams,
    suppressed tokens, a temperature) is set aside, so that two models are asked alike.

    Args:
        generating: a context that yields the module ready for ``generate``.
        tokenizer: the model's tokenizer.
        end_tokens: tokens that end an answer.
        context: tokens the model can attend to.
        decoder_prompt: of an encoder-decoder, what its decoder is fed before it writes; prompts
            are then what the encoder reads, once.
    """

    def __init__(
        self,
        generating: Callable[[], AbstractContextManager[Any]],
        tokenizer: Any,
        end_tokens: Sequence[int],
        context: int,
        decoder_prompt: Sequence[int] | None = None,
    ) -> None:
        self._generating, self._tokenizer = generating, tokenizer
        self._end, self._context = tuple(end_tokens), context
        pad = tokenizer.pad_token_id
        self._pad = pad if pad is not None else next(iter(self._end), 0)
        self._decoder_prompt = None if decoder_prompt is None else list(decoder_prompt)

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, tokens: int = 8192
    ) -> list[list[int]]:
        """New tokens after each prompt, the end of turn left out.

        Prompts of similar length share a batch, padded on the left (what an encoder reads, on the
        right); ``tokens`` bounds a batch's tokens, answers and beams included. Prompts that leave
        no room for an answer lose their beginning.
        """
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        answers: list[list[int]] = [[] for _ in prompts]
        batch: list[int] = []
        for index in order:
            length = (len(prompts[index]) + sampling.max_new_tokens) * sampling.num_beams
            if batch and (len(batch) + 1) * length > tokens:
                self._fill(answers, prompts, batch, sampling)
                batch = []
            batch.append(index)
        if batch:
            self._fill(answers, prompts, batch, sampling)
        return answers

    def text(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[str]:
        """The answers as text, cut at the stop strings."""
        answers = self.generate(prompts, sampling)
        return [_cut(self._decode(tokens), sampling.stop) for tokens in answers]

    def stream(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[str]:
        """One answer's text, piece by piece; the pieces make up what :meth:`text` gives.

        Sampling ends as soon as nobody reads on.
        """
        assert sampling.num_beams == 1, "a beam search has no answer before its end"
        tokens: SimpleQueue[int | None] = SimpleQueue()
        failed: list[BaseException] = []
        watch = _Watch(self._decode, sampling.stop, tokens.put)

        def work() -> None:
            try:
                self._call([self._fitted(prompt, sampling)], sampling, watch)
            except BaseException as error:  # the reader raises it in its own thread
                failed.append(error)
            finally:
                tokens.put(None)

        thread = Thread(target=work, daemon=True)
        thread.start()
        try:
            yield from _until(self._growing(iter(tokens.get, None)), sampling.stop)
        finally:
            watch.cancelled.set()
            thread.join()
        if failed:
            raise failed[0]

    def _fitted(self, prompt: Sequence[int], sampling: Sampling) -> list[int]:
        if self._decoder_prompt is not None:
            return list(prompt[-self._context :])
        room = self._context - sampling.max_new_tokens
        assert room > 0, "max_new_tokens fills the whole context"
        return list(prompt[-room:])

    def _fill(
        self,
        answers: list[list[int]],
        prompts: Sequence[Sequence[int]],
        batch: Sequence[int],
        sampling: Sampling,
    ) -> None:
        rows = self._call(
            [self._fitted(prompts[i], sampling) for i in batch],
            sampling,
            _Watch(self._decode, sampling.stop),
        )
        for index, row in zip(batch, rows, strict=True):
            answers[index] = row

    def _call(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, watch: _Watch
    ) -> list[list[int]]:
        from transformers import StoppingCriteriaList

        inputs, width = self._inputs(prompts)
        watch.width = width
        with self._generating() as module, torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(sampling.seed)
            device = next(module.parameters()).device
            with _own_preferences_aside(module):
                out = module.generate(
                    **{name: torch.tensor(rows, device=device) for name, rows in inputs.items()},
                    generation_config=self._config(sampling),
                    stopping_criteria=StoppingCriteriaList([watch]),
                )
        return [self._until_end(row) for row in out[:, width:].tolist()]

    def _inputs(self, prompts: Sequence[Sequence[int]]) -> tuple[dict[str, list[list[int]]], int]:
        """Prompts of one batch as rows, and what stands before an answer in what comes back."""
        width = max(len(prompt) for prompt in prompts)
        left = [width - len(prompt) for prompt in prompts]
        if self._decoder_prompt is None:
            # A row is filled up with its own first token, not with a pad token: what is masked is
            # not seen, but a repetition penalty counts it, and padding is often the end token.
            rows = [[p[0]] * n + list(p) for p, n in zip(prompts, left, strict=True)]
            mask = [[0] * n + [1] * (width - n) for n in left]
            return {"input_ids": rows, "attention_mask": mask}, width
        # Encoders with positions count them from the left, some of them by the pad token.
        rows = [list(p) + [self._pad] * n for p, n in zip(prompts, left, strict=True)]
        mask = [[1] * (width - n) + [0] * n for n in left]
        begun = [self._decoder_prompt for _ in prompts]
        inputs = {"input_ids": rows, "attention_mask": mask, "decoder_input_ids": begun}
        return inputs, len(self._decoder_prompt)

    def _config(self, sampling: Sampling) -> Any:
        from transformers import GenerationConfig

        draws = {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p or None,
        }
        beams = {
            "num_beams": sampling.num_beams,
            "length_penalty": sampling.length_penalty,
            "early_stopping": sampling.early_stopping,
        }
        start = self._decoder_prompt
        begins = {} if start is None else {"decoder_start_token_id": start[0]}
        return GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            repetition_penalty=sampling.repetition_penalty,
            eos_token_id=list(self._end) or None,
            pad_token_id=self._pad,
            **(draws if sampling.temperature > 0 else {"do_sample": False}),
            **(beams if sampling.num_beams > 1 else {}),
            **begins,
        )

    def _until_end(self, row: list[int]) -> list[int]:
        """The row up to its end token; a row that a stop string ended is filled with padding."""
        ends = [i for i, token in enumerate(row) if token in self._end]
        row = row[: ends[0]] if ends else row
        while row and row[-1] == self._pad:
            row = row[:-1]
        return row

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(
            self._tokenizer.decode(
                list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def _growing(self, tokens: Iterator[int]) -> Iterator[str]:
        """What each token adds to the decoded text, whole characters at a time."""
        seen: list[int] = []
        said = ""
        for token in tokens:
            if token in self._end:
                continue
            seen.append(token)
            text = self._decode(seen)
            if len(text) > len(said) and text.startswith(said) and text[-1] != _UNFINISHED:
                yield text[len(said) :]
                said = text
        if rest := self._decode(seen)[len(said) :]:
            yield rest


class _Watch:
    """Asked by transformers after every step which rows are done.

    transformers' own stop strings would do, but for two things: they may match text that begins
    in the prompt, and they cannot be called off by a reader who has gone.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop: Sequence[str],
        tell: Callable[[int], None] | None = None,
    ) -> None:
        self.width = 0
        self.cancelled = Event()
        self._decode, self._stop, self._tell = decode, tuple(stop), tell
        # A token spells at least a byte; two more for the decoder's habits at the beginning.
        self._reach = max((len(s.encode()) for s in stop), default=0) + 2

    def __call__(self, input_ids: Tensor, _scores: Any, **_: Any) -> Tensor:
        if self._tell is not None:
            self._tell(int(input_ids[0, -1]))
        done = torch.full(input_ids.shape[:1], self.cancelled.is_set(), device=input_ids.device)
        if self._stop:
            begin = max(self.width, input_ids.shape[1] - self._reach)
            for number, row in enumerate(input_ids[:, begin:].tolist()):
                text = self._decode(row)
                done[number] |= any(s in text for s in self._stop)
        return done


@contextmanager
def _own_preferences_aside(module: Any) -> Iterator[None]:
    """What a generation config leaves open, transformers fills from the model's own."""
    from transformers import GenerationConfig

    inner = getattr(module, "get_base_model", None)
    base = inner() if callable(inner) else module
    kept = base.generation_config
    base.generation_config = GenerationConfig()
    try:
        yield
    finally:
        base.generation_config = kept


def _cut(text: str, stop: Sequence[str]) -> str:
    found = [at for s in stop if (at := text.find(s)) >= 0]
    return text[: min(found)] if found else text


def _until(pieces: Iterator[str], stop: Sequence[str]) -> Iterator[str]:
    """Pieces of text up to the first stop string, holding back what may become one."""
    held = ""
    for piece in pieces:
        held += piece
        text = _cut(held, stop)
        if text != held:
            yield text
            return
        keep = max((n for s in stop for n in range(len(s)) if held.endswith(s[:n])), default=0)
        if len(held) > keep:
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
    if held:
        yield held
