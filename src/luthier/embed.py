"""Asking a sentence encoder: a run, a folder or an adapter whose answer is a vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from luthier.core.codec import text_segment
from luthier.core.errors import RecipeError
from luthier.core.records import Example, Origin
from luthier.data.length import fit
from luthier.data.template import TokenizerCodec
from luthier.evaluation.retrieving import vectors
from luthier.models.embedder import EmbeddingModel
from luthier.models.load import Loaded, load


class Embedder:
    """A model that turns texts into vectors.

    >>> embedder = Embedder.open("runs/embeddings")                      # doctest: +SKIP
    >>> embedder.embed(["Where is my card?", "My card is not here"])     # doctest: +SKIP

    Attributes:
        context: tokens that a text may have.
        notices: what the user should know about the vectors so far (texts cut).
    """

    def __init__(self, loaded: Loaded) -> None:
        if not isinstance(loaded.model, EmbeddingModel):
            raise RecipeError(
                f"'{loaded.name}' is no sentence encoder",
                cure="tune one: objective: embedding",
            )
        self.context = loaded.context
        self.notices = list(loaded.said)
        self._model = loaded.model
        self._codec = TokenizerCodec(loaded.tokenizer, max_length=loaded.context)

    @classmethod
    def open(cls, name: str) -> Embedder:
        """A sentence encoder by name.

        Raises:
            UserError: not found, or no sentence encoder.
        """
        return cls(load(name))

    def embed(self, texts: Sequence[str], *, normalise: bool = True) -> npt.NDArray[np.float32]:
        """A vector of every text, in order: ``[texts, H]``.

        Args:
            texts: at least one.
            normalise: to length 1, so that a product of two is their cosine.
        """
        examples = []
        for line, text in enumerate(texts, 1):
            whole = Example((text_segment(self._codec, text),), {}, Origin("text", line))
            [fitted], cut = fit(whole, self.context, "right", frame=self._codec.frame)
            examples.append(fitted)
            if cut:
                self.notices.append(f"text {line} lost its last {cut.tokens:,} tokens")
        made: npt.NDArray[np.float32] = vectors(self._model, examples).numpy()
        return made / np.linalg.norm(made, axis=1, keepdims=True) if normalise else made
