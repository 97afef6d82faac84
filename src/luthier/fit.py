"""Parts to a trained model: method, plan, probe, loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from luthier import environment
from luthier.assemble import Parts
from luthier.core import cache
from luthier.core.contracts import LanguageModel, OnlineObjective
from luthier.core.contracts_beside import Solve, Solving
from luthier.core.errors import RecipeError, nearest
from luthier.core.recipe import TrainingSpec
from luthier.core.rundir import RunDir, write_text
from luthier.engine import checkpoint, neftune, optim_8bit, probe, rates, recover
from luthier.engine.backend import Backend
from luthier.engine.checkpoint import State
from luthier.engine.loop import Data, Loop, divided
from luthier.engine.online import OnlineLoop
from luthier.engine.solver import Solver
from luthier.engine.trackers import Tracker, open_trackers
from luthier.engine.watch import Stop, signals
from luthier.feed import feed, order_of
from luthier.models import content, valued
from luthier.models.load import count_parameters
from luthier.models.plan import inner_size
from luthier.models.run_models import RunModels
from luthier.rollouts import PolicyRollouts, notices

Say = Callable[[str], None]

#: Settings of training that a resumed run must share.
_EXACT = (
    "batch_size",
    "optimizer",
    "betas",
    "weight_decay",
    "seed",
    "clip_norm",
    "neftune_alpha",
    "ema",
)
#: The fingerprint of a local model's content.
_FILES = "the model's files"
#: That of a mixture or of balanced classes.
_DRAWN = "what an epoch draws"


@dataclass(frozen=True)
class Outcome:
    """How training ended.

    Attributes:
        status: ``stopped`` where steps are left to do.
        main: whether this process is the one that writes.
    """

    status: Literal["finished", "early", "stopped"]
    main: bool


def fit(
    parts: Parts,
    folder: RunDir,
    choices: dict[str, Any],
    say: Say,
    *,
    quiet: bool,
    resumed: bool,
    allow_inexact: bool = False,
) -> Outcome:
    """Trains ``parts.loaded.model`` in place.

    Args:
        parts: from :func:`luthier.assemble.assemble`.
        folder: the run folder.
        choices: what was chosen for this machine so far (threads).
        say: takes a line for the user.
        quiet: no progress on the terminal.
        resumed: whether to continue from the newest sound checkpoint.
        allow_inexact: continue though data or recipe are not what they were.

    Raises:
        RecipeError: data or recipe are not those of the checkpoint.
        TrainingError: no sound checkpoint to resume from, or a run that had to stop.
    """
    spec = parts.recipe.training
    first = environment.first_rank()
    if not first:
        say, quiet = _silent, True
    kept = _newest(folder, spec.device, say) if resumed else None
    old = checkpoint.read_state(kept) if kept else None
    fingerprint = fingerprints(parts)
    changed = _changed(old.fingerprint, fingerprint) if old else []
    if changed:
        _accept(changed, allow_inexact, say)
    choices = _kept_choices(old, spec, say) if old else {**choices, **_probe(parts)}
    backend = Backend(spec.device, choices["precision"])
    optim_8bit.check(spec.optimizer, backend.device)
    data, policy = feed(parts, backend, choices, say)
    neftune.check(spec.neftune_alpha, policy)
    _announce(parts, backend, choices, data, say)
    _check_metric(parts, data)
    done = old.step if old else 0
    if done > data.total:
        raise _beyond(folder, done, data.total)
    if first:
        _begin(parts, folder, backend, choices, fresh=old is None)
    trackers = open_trackers(folder, spec.trackers, data.total, done, quiet) if first else []
    with signals() as stop, stop.patiently(), closing(trackers):
        state = State(choices=choices, fingerprint=fingerprint)
        loop = _loop(parts, folder, backend, (data, policy), trackers, stop, state)
        if kept:
            loop.resume(kept, moments="training.optimizer" not in changed)
            loop.state.choices, loop.state.fingerprint = choices, fingerprint
            say(f"continuing after step {loop.state.step:,}")
        status = loop.train()
        if status == "early":
            _take_best(loop, folder, say)
        stop.together(backend)  # what came during the last step, or to another rank alone
    return _outcome(status, backend, policy)


def _outcome(
    status: Literal["finished", "early", "stopped"], backend: Backend, policy: LanguageModel
) -> Outcome:
    """How it ended; of a policy with a value head, what is left to save is the policy alone."""
    if isinstance(policy, valued.ValuedModel):
        valued.detach(policy)
    return Outcome(status, backend.main)


def _loop(
    parts: Parts,
    folder: RunDir,
    backend: Backend,
    fed: tuple[Data, LanguageModel],
    trackers: Sequence[Tracker],
    stop: Stop,
    state: State,
) -> Loop:
    data, policy = fed
    kind: Callable[..., Loop] = Loop
    if isinstance(parts.objective, OnlineObjective):
        rollouts = PolicyRollouts(parts, backend, order_of(parts), state.choices)
        kind = partial(OnlineLoop, rollouts=rollouts)
    if (solve := _solve(parts)) is not None:
        assert data.rows is not None, "a solver without a cached trunk"
        kind = partial(Solver, solve=solve, rows=data.rows)
    return kind(
        parts.recipe.training,
        folder,
        backend,
        parts.objective,
        parts.method,
        RunModels(policy, parts.method),
        data,
        peak_rate(parts),
        trackers,
        stop,
        state,
    )


def _solve(parts: Parts) -> Solve | None:
    """How the head is solved for, where it is not trained in steps."""
    method = parts.method
    found = method.solve if isinstance(method, Solving) else None
    if found is not None and parts.loaded.head is not None:
        calibrate = found.calibrate and parts.loaded.head.problem_type != "regression"
        found = replace(found, calibrate=calibrate)  # a number is not likely or unlikely
    return found


def peak_rate(parts: Parts) -> float:
    """The recipe's learning rate, or the method's own."""
    rate = parts.recipe.training.learning_rate
    return parts.method.default_rate if isinstance(rate, str) else rate


@contextmanager
def closing(trackers: Sequence[Tracker]) -> Iterator[None]:
    """Closes every tracker, whatever happens."""
    try:
        yield
    finally:
        for tracker in trackers:
            tracker.close()


def _announce(
    parts: Parts, backend: Backend, choices: dict[str, Any], data: Data, say: Say
) -> None:
    trainable, total = count_parameters(parts.loaded.model.module)
    say(f"trainable: {trainable:,} of {total:,} ({trainable / total:.2%})")
    if _solve(parts) is not None:
        say(
            f"L-BFGS over all {len(data.train):,} rows at once, until the gradient is flat: batch "
            "size, epochs, learning rate and schedule have no part in it"
        )
    else:
        module = parts.loaded.model.module
        groups = rates.rated(parts.method.param_groups(module), module, parts.recipe.training)
        if said := rates.described(groups, peak_rate(parts)):
            say(f"learning rates: {said}")
        online = isinstance(parts.objective, OnlineObjective)
        noun = "prompts" if online else "examples"
        say(
            f"{data.total:,} steps of {parts.recipe.training.batch_size} {noun}, "
            f"{choices['token_budget']:,} tokens at most in a micro-batch"
        )
        for line in notices(parts) if online else ():
            say(line)
    say(
        f"{choices['precision']} on {backend.device}, {choices['threads']} threads "
        f"({choices['because']})"
    )


def _take_best(loop: Loop, folder: RunDir, say: Say) -> None:
    assert loop.state.best is not None
    best = loop.state.best[1]
    averaged = loop.spec.ema is not None
    checkpoint.load_weights(folder.checkpoint(best), loop.parameters, averaged=averaged)
    say(f"stopped early; the result is the best checkpoint, of step {best:,}")


def fingerprints(parts: Parts) -> dict[str, str]:
    """What a resumed run must share with the one that was stopped, by name."""
    plain = parts.recipe.resolved()
    training = plain["training"]
    held = parts.validation[0].fingerprint if parts.validation else ""
    name = parts.recipe.model.name
    files = content.fingerprint(name) if name else None
    return {
        **({_FILES: files} if files else {}),
        **(
            {"model.layers": cache.key(plain["model"]["layers"])}
            if parts.recipe.model.layers
            else {}
        ),
        "model": cache.key(plain["model"]),
        "objective": cache.key(plain["objective"]),
        "method": cache.key(plain["method"]),
        "training data": parts.train[0].fingerprint,
        "validation data": held,
        **_old_rows(parts),
        **_reward_models(parts),
        "tokens": cache.key(parts.codec.fingerprint(), parts.codec.max_length),
        **({_DRAWN: cache.key(parts.drawing[0].figures())} if parts.drawing else {}),
        **{f"training.{name}": cache.key(training[name]) for name in _EXACT},
    }


def _old_rows(parts: Parts) -> dict[str, str]:
    """What of ``retain`` decides the steps."""
    spec, kept = parts.recipe.retain, parts.retained
    if spec is None or kept is None or not (spec.replay or spec.kl):
        return {}
    rows = kept.replayed[0].fingerprint if kept.replayed else ""
    return {"retained rows": cache.key(rows, spec.replay, spec.kl)}


def _reward_models(parts: Parts) -> dict[str, str]:
    """What rewards read beside their settings: the files of models on this machine."""
    configs = getattr(parts.objective.config, "rewards", ())
    named = [name for c in configs if isinstance(name := getattr(c, "model", None), str)]
    files = [found for name in named if (found := content.fingerprint(name))]
    return {"reward models' files": cache.key(files)} if files else {}


def _probe(parts: Parts) -> dict[str, Any]:
    config = parts.loaded.model.config
    return probe.choose(parts.recipe.training, config.hidden_size, inner_size(config))


def _newest(folder: RunDir, device: str, say: Say) -> Path | None:
    """The newest sound checkpoint, found by the first rank while the others wait."""
    kept = recover.newest_sound(folder, say) if environment.first_rank() else None
    Backend(device).barrier()
    if not environment.first_rank() and (saved := folder.saved()):
        kept = saved[-1][1]
    if kept is None:
        say("stopped before its first checkpoint: it begins at step 0")
    return kept


def _kept_choices(old: State, spec: TrainingSpec, say: Say) -> dict[str, Any]:
    """The choices of the run so far; only a smaller token budget is taken from the recipe."""
    choices = dict(old.choices)
    asked, before = spec.token_budget, choices["token_budget"]
    if isinstance(asked, int) and asked < before:
        choices["token_budget"] = asked
        say(f"{asked:,} tokens in a micro-batch from now on, {before:,} before")
    return choices


def _changed(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """What is not as it was, by name; a model's files count, where they are known, not its name."""
    named = [*new, *([_DRAWN] if _DRAWN in old and _DRAWN not in new else [])]
    changed = [name for name in named if name != _FILES and old.get(name) != new.get(name)]
    if _FILES in old and _FILES in new:
        changed = [name for name in changed if name != "model"]
        if old[_FILES] != new[_FILES]:
            changed.insert(0, _FILES)
    return changed


def _accept(changed: Sequence[str], allow_inexact: bool, say: Say) -> None:
    named = ", ".join(changed)
    if allow_inexact:
        say(f"inexact from here on: changed since the run began: {named}")
        return
    raise RecipeError(
        f"the run cannot be continued exactly: changed since it began: {named}",
        cure="restore them, continue all the same with --allow-inexact, or start a new run from "
        "this one's model",
        code="changed",
    )


def _beyond(folder: RunDir, done: int, total: int) -> RecipeError:
    return RecipeError(
        f"run '{folder.path}' is at step {done:,}, and the recipe now ends at {total:,}",
        cure="give it more: training.epochs, or training.max_steps",
        code="beyond",
    )


def _begin(
    parts: Parts, folder: RunDir, backend: Backend, choices: dict[str, Any], *, fresh: bool
) -> None:
    """Recipe and environment; a run that goes on does not look finished from here on."""
    folder.card.unlink(missing_ok=True)
    if fresh:
        environment.write(folder, _environment(parts, backend, choices))
    # Last: a folder with both is a run, which can be resumed.
    write_text(folder.recipe, parts.recipe.to_yaml())


def _check_metric(parts: Parts, data: Data) -> None:
    rule = parts.recipe.training.early_stopping
    if rule is None:
        return
    if not data.validation:
        raise RecipeError("training.early_stopping needs data.validation")
    names = ["loss"]
    if not isinstance(parts.objective, OnlineObjective):  # whose loss is the reward's negative
        terms = parts.objective.weights(data.collate([data.train[0]]))
        names += divided(parts.objective, terms)[0]  # what is watched may be better above
    if rule.metric not in names:
        raise RecipeError(
            f"training.early_stopping.metric '{rule.metric}': {nearest(rule.metric, names)}"
        )


def _environment(parts: Parts, backend: Backend, choices: dict[str, Any]) -> dict[str, Any]:
    trainable, total = count_parameters(parts.loaded.model.module)
    data = {"train": parts.train[1].counts}
    if parts.validation:
        data["validation"] = parts.validation[1].counts
    return {
        "device": str(backend.device),
        "ranks": backend.ranks,
        "threads": choices["threads"],
        "precision": choices["precision"],
        "probe": choices,
        "parameters": {"trainable": trainable, "total": total},
        "data": data,
        **({"epoch": parts.drawing[0].figures()} if parts.drawing else {}),
    }


def _silent(_line: str) -> None:
    """Ranks but the first say nothing."""
