"""Libraries that talk while they work are told to keep quiet, so that only Luthier speaks.

What they would have said and a user must know (a setting without effect, a missing weight) is for
Luthier's own code to find and to say in its own words.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

#: Read by the libraries when they are imported; a user's own setting stays.
_SETTINGS = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
_CHATTY = r"(transformers|peft|accelerate|datasets|huggingface_hub|torch)(\.|$)"


def prepare() -> None:
    """For a process that is Luthier's own, before any library is imported; costs no time."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


@contextmanager
def hushed() -> Iterator[None]:
    """While open, transformers shows no bars and no warnings; afterwards all is as before.

    Downloads from the hub keep their bar on a terminal: they may take minutes.
    """
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    downloads = sys.stderr.isatty() and "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ
    if downloads:
        enable_progress_bars()
    try:
        with warnings.catch_warnings():
            for category in (UserWarning, FutureWarning, DeprecationWarning):
                warnings.filterwarnings("ignore", category=category, module=_CHATTY)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
        elif downloads:
            disable_progress_bars()
