"""Asking a reward or an outcome model: what an answer to a prompt is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from luthier.core.errors import DataError, RecipeError
from luthier.core.records import Example, Origin, Turn
from luthier.data.length import fit
from luthier.data.template import TokenizerCodec
from luthier.evaluation.measure import batches
from luthier.models.heads import ClassifierModel
from luthier.models.load import Loaded, load
from luthier.objectives import correctness, reward
from luthier.objectives._answers import Asked, read_segments

#: Names of the one output by which a model is known to score answers.
LABELS = (reward.LABEL, correctness.LABEL)
#: Answers to one prompt that share it in memory.
_GROUP = 32

#: A user's message, or the turns up to where the assistant begins to speak.
Prompt = str | Sequence[Turn]


class Scorer:
    """A model that says what answers are worth.

    >>> scorer = Scorer.open("runs/reward")                                    # doctest: +SKIP
    >>> scorer.scores(["Where is my card?"] * 2, ["On its way.", "Dunno."])    # doctest: +SKIP
    [1.8, -0.6]

    Attributes:
        context: tokens that a prompt with its answer may have.
        notices: what the user should know about the scores so far (prompts cut).
    """

    def __init__(self, loaded: Loaded) -> None:
        model = loaded.model
        if not isinstance(model, ClassifierModel) or len(model.labels) != 1:
            raise RecipeError(
                f"'{loaded.name}' scores no answers",
                cure="tune a model that does: objective: reward, or correctness",
            )
        self.context = loaded.context
        self.notices: list[str] = []
        self._model = model
        self._codec = TokenizerCodec(
            loaded.tokenizer, max_length=loaded.context, causal=model.causal
        )

    @classmethod
    def open(cls, name: str) -> Scorer:
        """A reward or an outcome model by name.

        Raises:
            UserError: not found, or a model that scores nothing.
        """
        return cls(load(name))

    def scores(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """What each answer is worth as an answer to the prompt at the same place.

        Of a reward model a number, of an outcome model the probability that the answer is right.
        Answers to one prompt read it once. A prompt too long for the model loses its beginning,
        which :attr:`notices` say.

        Raises:
            DataError: an answer that is longer than what the model reads.
        """
        assert len(prompts) == len(answers), "an answer without its prompt"
        examples, places = [], []
        for turns, numbers in _grouped(prompts):
            examples.append(self._example(turns, [answers[i] for i in numbers]))
            places.append(numbers)
        found = np.zeros(len(answers))
        for indices, batch in batches(self._model, examples):
            table = batch.targets[reward.HEAD]
            pooled = self._model.pooled(batch, self._model.hidden(batch), table["segment"])
            values = self._model.outputs(reward.HEAD, pooled)[:, 0].float()
            if self._model.problem_type != "regression":
                values = values.sigmoid()
            order = [i for index in indices for i in places[index]]
            found[order] = values.cpu().numpy()
        return [float(value) for value in found]

    def _example(self, prompt: Sequence[Turn], answers: Sequence[str]) -> Example:
        said = tuple((Turn("assistant", answer),) for answer in answers)
        asked = Asked(tuple(prompt), said, Origin("answers", 1))
        segments, ends = read_segments(asked, self._codec)
        table = {"segment": np.array(ends, dtype=np.int64)}
        example = Example(segments, {reward.HEAD: table}, asked.origin)
        bos, frame = self._codec.tokenizer.bos_token_id, self._codec.frame
        fitted, cut = fit(example, self.context, "left", bos=bos, frame=frame)
        if not fitted:
            raise DataError(
                f"an answer does not fit: the model reads {self.context:,} tokens", code="overlong"
            )
        if cut:
            self.notices.append(f"a prompt lost its first {cut.tokens:,} tokens: it was too long")
        return fitted[0]


def _grouped(prompts: Sequence[Prompt]) -> Iterator[tuple[tuple[Turn, ...], list[int]]]:
    """Each prompt, and where its answers stand; no more of them than share it."""
    found: dict[tuple[Turn, ...], list[int]] = {}
    for number, prompt in enumerate(prompts):
        turns = (Turn("user", prompt),) if isinstance(prompt, str) else tuple(prompt)
        found.setdefault(turns, []).append(number)
    for turns, numbers in found.items():
        for at in range(0, len(numbers), _GROUP):
            yield turns, numbers[at : at + _GROUP]
