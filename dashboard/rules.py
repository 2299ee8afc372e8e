"""What each of the owner's rules, and each of the platform's own checks, is for."""

from dashboard.texts import catalogue, language, text

PLATFORM = frozenset(
    ("ckks", "compute", "constants", "division", "dtype", "index", "inputs", "mapping", "memory",
     "names", "noise", "operation", "outputs", "ring", "roster", "scores", "shape", "size",
     "split", "state", "text", "threshold", "unbind", "unused", "catalogue")
)  # fmt: skip
"""Checks that hold at every domain, whatever its owner's file says."""


def why(rule: str) -> str:
    """What a rule protects, and who could let the plan pass."""
    key = f"rules.{rule}"
    if key in catalogue(language()):
        return text(key)
    return text("rules.platform" if rule in PLATFORM else "rules.unknown", rule=rule)
