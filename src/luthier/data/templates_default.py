"""Which chat template a run uses: the recipe's, the model's own, or this default.

Whichever it is, it becomes a Jinja chat template on the tokenizer, so that it is saved with the
model and plain transformers renders the very same prompts.
"""

from __future__ import annotations

import string
from typing import Any

from luthier.core.errors import RecipeError

#: ``{source}`` is what a pair's source is asked as: the prompt, by the name that pairs have for it.
_FIELDS = ("prompt", "source", "system")

#: Plain markers, an end-of-text token after every answer, nothing after it:
#:
#:     ### System:
#:     Be brief.
#:
#:     ### User:
#:     Hello
#:
#:     ### Assistant:
#:     Hi<eos>
DEFAULT = (
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant', 'tool'] -%}"
    "{{- raise_exception('no such role: ' + message['role']) -}}"
    "{%- endif -%}"
    "{{- '' if loop.first else '\\n\\n' -}}"
    "{{- '### ' + message['role'].capitalize() + ':\\n' + message['content'] -}}"
    "{{- eos_token if message['role'] == 'assistant' else '' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}"
    "{{- ('\\n\\n' if messages else '') + '### Assistant:\\n' -}}"
    "{%- endif -%}"
)

_FORMATTED = (
    "{{%- set ns = namespace(system='', first=true) -%}}"
    "{{%- for message in messages -%}}"
    "{{%- if message['role'] == 'system' -%}}"
    "{{%- if not loop.first -%}}{{{{- raise_exception('a system turn after the first') -}}}}"
    "{{%- endif -%}}"
    "{{%- set ns.system = message['content'] -%}}"
    "{{%- elif message['role'] == 'user' -%}}"
    "{{{{- '' if ns.first else '\\n' -}}}}"
    "{before}{body}"
    "{{%- set ns.system = '' -%}}{{%- set ns.first = false -%}}"
    "{{%- elif message['role'] == 'assistant' -%}}"
    "{{%- if ns.first -%}}{{{{- raise_exception('an assistant turn before any user turn') -}}}}"
    "{{%- endif -%}}"
    "{{{{- message['content'] -}}}}{{{{- eos_token -}}}}"
    "{{%- else -%}}{{{{- raise_exception('no such role: ' + message['role']) -}}}}"
    "{{%- endif -%}}"
    "{{%- endfor -%}}"
)


def choose(tokenizer: Any, template: str | None, *, writes_bos: bool) -> tuple[str, str]:
    r"""The Jinja chat template of a run, and which one it is, in words.

    Args:
        tokenizer: its own template counts where the recipe gives none.
        template: the recipe's: a Jinja chat template, or a format as ``"Q: {prompt}\nA:"``.
        writes_bos: whether a template of ours begins with the beginning-of-text token.

    Raises:
        RecipeError: the recipe's template is neither.
    """
    bos = "{{- bos_token -}}" if writes_bos else ""
    if template is None:
        if own := _own(tokenizer):
            return own, "the model's own chat template"
        return bos + DEFAULT, (
            "the model has no chat template: Luthier's default is used and saved with the model"
        )
    if is_jinja(template):
        return template, "the recipe's chat template is used and saved with the model"
    said = "the recipe's prompt format is used and saved with the model as a chat template"
    if template.endswith(" "):
        # Prompt and answer are tokenised apart, here and at inference; but plain transformers
        # tokenises the earlier turns of a conversation in one go.
        said += "; it ends in a space, which most tokenizers join to the answer's first word"
    return bos + from_format(template), said


def is_jinja(template: str) -> bool:
    """Whether a recipe's template is a Jinja chat template; one must read ``messages``.

    >>> is_jinja("{% for m in messages %}{{ m.content }}{% endfor %}"), is_jinja("Q: {prompt}")
    (True, False)

    Raises:
        RecipeError: it is Jinja but never reads ``messages``.
    """
    if "messages" in template and ("{%" in template or "{{" in template):
        return True
    if "{%" in template:
        raise RecipeError(
            "the chat template never reads 'messages'",
            "data.template",
            "loop over messages, or write a format as 'Q: {prompt}\\nA:'",
            "template",
        )
    return False


def from_format(form: str) -> str:
    """A prompt format as a Jinja chat template.

    A user turn is written in the format, an assistant turn follows as it is, with the end-of-text
    token; a newline stands before every further user turn. A system turn goes where the format
    says ``{system}`` (empty where there is none), else before the first user turn with an empty
    line between.

    Raises:
        RecipeError: no ``{prompt}``, another ``{name}``, or a single literal brace.
    """
    parts: list[str] = []
    fields: set[str] = set()
    try:
        parsed = list(string.Formatter().parse(form))
    except ValueError as error:
        raise _bad_format(form, str(error)) from None
    for literal, name, spec, conversion in parsed:
        if literal:
            parts.append("{{- " + _quoted(literal) + " -}}")
        if name is None:
            continue
        if name not in _FIELDS or spec or conversion:
            raise _bad_format(form, f"'{{{name}}}' is none of {{prompt}} and {{system}}")
        fields.add("system" if name == "system" else "prompt")
        parts.append("{{- ns.system -}}" if name == "system" else "{{- message['content'] -}}")
    if "prompt" not in fields:
        raise _bad_format(form, "it has no {prompt}")
    before = "" if "system" in fields else "{{- ns.system + '\\n\\n' if ns.system else '' -}}"
    return _FORMATTED.format(before=before, body="".join(parts))


def _bad_format(form: str, why: str) -> RecipeError:
    return RecipeError(
        f"the prompt format {form!r}: {why}",
        "data.template",
        "write {prompt} once where the user's text goes, {system} where a system text goes, and "
        "double any other brace: {{ }}",
        "template",
    )


def _quoted(text: str) -> str:
    """A Jinja string literal; escapes keep newlines that Jinja's own reading would change."""
    return "'" + text.encode("unicode_escape").decode("ascii").replace("'", "\\'") + "'"


def _own(tokenizer: Any) -> str | None:
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    return own or None
