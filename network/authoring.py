"""What an author gives a step or a plan, checked at once: what is wrong, and what to write.

For her sake alone, before anything is traced or sent: nodes judge every plan themselves.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from torch import Tensor, nn

from network.clip_norms import AdaptiveClip
from policies.plan import NAME, Dealer

_LARGEST_NORM = 1e9
_LONGEST_DEADLINE_S = 86_400
_NAMED = "1 to 64 letters, digits, spaces or any of . _ -, with a letter or digit first"


class Wrong(ValueError):
    """A plan or step can't be as it was written; the text says what to write."""


def check_step(step: Any) -> None:
    """Nothing, if a `Sum` or `Gradient` is of the kinds and within the bounds that it declares.

    Raises:
        Wrong: it isn't.
    """
    _check_name("A step's name", step.name)
    where = f"Step {step.name!r}: "
    for what in ("contribution", "loss"):
        if hasattr(step, what):
            _check_callable(f"{where}{what}", getattr(step, what), "of (state, user)")
    _check_clip_norm(f"{where}clip_norm", step.clip_norm)
    _check_whole(f"{where}releases", step.releases, 1, math.inf)
    _check_real(f"{where}weight", step.weight, 0, math.inf)
    _check_real(f"{where}sampling_rate", step.sampling_rate, 0, 1)
    if (step.after is None) != (step.every is None):
        raise Wrong(
            f"{where}after is {step.after!r} and every is {step.every!r}; give both, such as "
            "after='train', every=5 (one release after every five of 'train'), or neither."
        )
    if step.every is not None:
        _check_whole(f"{where}every", step.every, 1, math.inf)
    _check_flag(f"{where}kept", step.kept)
    for what in ("update", "metrics"):
        given = getattr(step, what)
        if given is not None and step.kept:
            raise Wrong(
                f"{where}kept=True keeps its totals as tensors, so {what} is never called: leave "
                "it out, and compute with what `fed.tensors(plan)` reveals (docs/tensors.md)."
            )
        if given is not None:
            _check_callable(f"{where}{what}", given, "or None")
    names = getattr(step, "parameters", None)
    if names is not None and (isinstance(names, str) or not isinstance(names, Sequence)):
        raise Wrong(f"{where}parameters is {_shown(names)}; expected names in a list: ['weight'].")


def check_plan(plan: Any, kinds: tuple[type, ...]) -> None:
    """The same for a `network.program.Plan`.

    Args:
        kinds: of its steps.

    Raises:
        Wrong: it isn't.
    """
    _check_name("The plan's name", plan.name)
    if not isinstance(plan.purpose, str):
        raise Wrong(f"purpose is {_shown(plan.purpose)}; expected a sentence that owners read.")
    if isinstance(plan.data, str):
        raise Wrong(f"data is {plan.data!r}; expected a data set: fed.data({plan.data!r}).")
    _check_steps(plan.steps, kinds)
    _check_state(plan.state)
    if plan.model is not None and not isinstance(plan.model, nn.Module):
        raise Wrong(f"model is {_shown(plan.model)}; expected a torch.nn.Module, made: MyModel().")
    if plan.epsilon is not None:
        _check_real("epsilon", plan.epsilon, 0, math.inf, "; None on public data alone: no noise")
    if not _is_real(plan.delta) or not 0 < plan.delta < 1:
        raise Wrong(
            f"delta is {_shown(plan.delta)}; expected a probability between 0 and 1, such as 1e-5."
        )
    for what, least in (("collusion", 0), ("threshold", 1)):
        if getattr(plan, what) is not None:
            _check_whole(what, getattr(plan, what), least, 1000)
    _check_whole("spare_attempts", plan.spare_attempts, 0, 10_000)
    _check_whole("deadline_s", plan.deadline_s, 1, _LONGEST_DEADLINE_S)
    _check_flag("two_domains", plan.two_domains)
    _check_choice("aggregation", plan.aggregation, ("smpc", "ckks"))
    _check_choice("comparisons", plan.comparisons, ("spu", None))
    if plan.dealer is not None and not isinstance(plan.dealer, Dealer):
        raise Wrong(
            f"dealer is {_shown(plan.dealer)}; expected None, or ct.Dealer(name=..., key=...) with "
            "the key that the dealer's own machine shows (docs/tensors.md)."
        )
    _check_memory(plan)


def check_partners(collusion: int, threshold: int, partners: int) -> None:
    """Nothing, if sums of so many partners carry noise that no t of them know.

    Raises:
        Wrong: t isn't below tau, or tau above the number of partners.
    """
    if not collusion < threshold <= partners:
        raise Wrong(
            f"collusion is {collusion} and threshold {threshold} for {partners} partners; expected "
            f"collusion < threshold <= {partners}: leave both out for the defaults."
        )


def _check_steps(steps: Any, kinds: tuple[type, ...]) -> None:
    if isinstance(steps, kinds):
        raise Wrong(f"steps is one {type(steps).__name__}; put it in a list: steps=[...].")
    if not isinstance(steps, Iterable) or isinstance(steps, str | Mapping) or not [*steps]:
        raise Wrong(f"steps is {_shown(steps)}; expected a list of ct.Sum and ct.Gradient.")
    earlier: set[str] = set()
    step: Any
    for step in steps:
        if not any(isinstance(step, kind) for kind in kinds):
            raise Wrong(f"steps has {_shown(step)}; expected ct.Sum(...) or ct.Gradient(...).")
        if step.name in earlier:
            raise Wrong(f"Two steps are named {step.name!r}; give each a name of its own.")
        if step.after is not None and step.after not in earlier:
            raise Wrong(
                f"Step {step.name!r} runs after {step.after!r}, which isn't before it in the list; "
                f"before it are: {', '.join(sorted(earlier)) or 'none'}."
            )
        earlier.add(step.name)


def _check_state(state: Any) -> None:
    if not isinstance(state, Mapping):
        raise Wrong(f"state is {_shown(state)}; expected tensors by name: {{'weight': tensor}}.")
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise Wrong(
                f"state[{name!r}] is {_shown(tensor)}; expected a tensor: torch.as_tensor(...)."
            )


def _check_memory(plan: Any) -> None:
    for what in ("memory", "scores"):
        if getattr(plan, what) is not None:
            _check_callable(what, getattr(plan, what), "or None")
    if plan.memory_size is not None:
        _check_whole("memory_size", plan.memory_size, 1, math.inf)
    for what in ("memory_size", "scores"):
        if getattr(plan, what) is not None and plan.memory is None:
            raise Wrong(f"{what} is given, but no memory that it is about: give memory=... too.")


def _check_clip_norm(what: str, given: Any) -> None:
    if isinstance(given, AdaptiveClip):
        return
    for norm in given.values() if isinstance(given, Mapping) else (given,):
        value = norm.item() if isinstance(norm, Tensor) and norm.numel() == 1 else norm
        if not _is_real(value) or not 0 < value <= _LARGEST_NORM:
            raise Wrong(
                f"{what} is {_shown(given)}; expected a positive number of at most 1e9, such as "
                "1.0, one for each output by name, or ct.AdaptiveClip(...)."
            )


def _check_name(what: str, given: Any) -> None:
    if not isinstance(given, str) or not re.fullmatch(NAME, given):
        raise Wrong(f"{what} is {_shown(given)}; expected {_NAMED}.")


def _check_callable(what: str, given: Any, more: str) -> None:
    if not callable(given):
        raise Wrong(f"{what} is {_shown(given)}; expected a function {more}.")


def _check_flag(what: str, given: Any) -> None:
    if not isinstance(given, bool):
        raise Wrong(f"{what} is {_shown(given)}; expected True or False.")


def _check_choice(what: str, given: Any, expected: tuple[str | None, ...]) -> None:
    if not (given is None or isinstance(given, str)) or given not in expected:
        choices = " or ".join(map(repr, expected))
        raise Wrong(f"{what} is {_shown(given)}; expected {choices}.")


def _check_whole(what: str, given: Any, least: int, most: float) -> None:
    if type(given) is not int or not least <= given <= most:
        bound = f"of at least {least}" if math.isinf(most) else f"from {least} to {most}"
        raise Wrong(f"{what} is {_shown(given)}; expected a whole number (int) {bound}.")


def _check_real(what: str, given: Any, above: int, most: float, more: str = "") -> None:
    if not _is_real(given) or not above < given <= most:
        bound = "a positive number" if math.isinf(most) else f"a number above {above}, up to {most}"
        raise Wrong(f"{what} is {_shown(given)}; expected {bound}{more}.")


def _is_real(given: Any) -> bool:
    return isinstance(given, Real) and not isinstance(given, bool) and math.isfinite(given)


def _shown(given: Any) -> str:
    """A short value itself, of everything else what it is."""
    if given is None or isinstance(given, bool | int | float | str):
        return repr(given)[:80]
    if isinstance(given, type):
        return f"the class {given.__name__}"
    if isinstance(given, Sequence | Mapping) and not len(given):
        return "empty"
    return f"a {type(given).__name__}"
