"""Where a server's secrets come from: its environment, a directory of secrets, its own folder."""

import os
from pathlib import Path

SECRETS = "COTERIE_SECRETS"
"""The variable that names a directory with one file a secret, as containers are given them."""


class SecretMissing(Exception):
    """A secret is in none of the places where it may be."""


def variable_of(name: str) -> str:
    """The environment variable of a secret: COTERIE_NODE_KEY for node.key."""
    return "COTERIE_" + name.upper().replace(".", "_")


def secret_file(folder: Path, name: str) -> Path:
    """The file that holds a secret: in the directory of secrets if it is there, or the folder."""
    given = os.environ.get(SECRETS)
    if given and (Path(given) / name).is_file():
        return Path(given) / name
    return folder / name


def is_given(folder: Path, name: str) -> bool:
    """Whether a secret comes from outside the folder."""
    return variable_of(name) in os.environ or secret_file(folder, name).parent != folder


def read_secret(folder: Path, name: str) -> str:
    """A secret's text.

    Raises:
        SecretMissing: says where it was looked for.
    """
    given = os.environ.get(variable_of(name))
    if given:
        return given.strip()
    try:
        return secret_file(folder, name).read_text().strip()
    except OSError:
        raise SecretMissing(
            f"The secret {name} is missing: set {variable_of(name)}, put it into the directory that"
            f" {SECRETS} names, or restore {folder / name}."
        ) from None
