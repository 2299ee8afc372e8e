"""What the peers give: heads that they co-signed, and releases that they helped to open."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policies.verify.evidence import (
    UNREADABLE,
    Bad,
    Cosigned,
    Link,
    entry_text,
    head_words,
    is_signed,
    strict_json,
)
from policies.verify.reading import json_file, only

Attempt = tuple[str, str, int, int]  # (plan hash, step, release, attempt)
_HEAD = {"node_key", "size", "domain", "root", "signature", "time", "cosignature"}


@dataclass(frozen=True)
class Opened:
    """A release entry of a peer's ledger.

    Attributes:
        attempt: what it opened.
        masked: by domain, the hash of the masked input that it opened, hex.
    """

    witness: str
    witness_key: str
    attempt: Attempt
    masked: dict[str, str]


@dataclass(frozen=True)
class Witnessed:
    """What one or more peers gave."""

    heads: tuple[Cosigned, ...] = ()
    opened: tuple[Opened, ...] = ()

    @classmethod
    def of(cls, said: Iterable[tuple[str, Mapping[str, Any]]]) -> "Witnessed":
        """Of (where it was read, what a peer gave). Raises Bad."""
        heads, opened = list[Cosigned](), list[Opened]()
        for where, each in said:
            try:
                only(each, {"format", "witness", "witness_key", "heads"}, {"opened"})
                heads += [_head(where, each, head) for head in each["heads"]]
                opened += [_opened(where, each, entry) for entry in each.get("opened", ())]
            except UNREADABLE as error:
                text = f"{where} can't be read ({type(error).__name__}: {error})"
                raise Bad(text, None) from None
        return cls(tuple(heads), tuple(opened))


def read_witnessed(heads: str | Path | Sequence[Mapping[str, Any]] | None) -> Witnessed:
    """Of a peer's file, a folder of such files, or their JSON.

    Raises:
        Bad: something in it isn't what its signatures say.
        FileNotFoundError: there is no such file, or none in the folder.
    """
    if heads is None:
        return Witnessed()
    if not isinstance(heads, str | Path):
        return Witnessed.of(("a peer's heads", each) for each in heads)
    path = Path(heads)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"There are no peers' heads at {path}")
    return Witnessed.of((str(file), json_file(file, "coterie-heads-v1")) for file in files)


def _head(where: str, said: Mapping[str, Any], head: Mapping[str, Any]) -> Cosigned:
    only(head, _HEAD)
    names = ("node_key", "size", "root", "time", "cosignature")
    found = Cosigned(where, said["witness"], said["witness_key"], **{n: head[n] for n in names})
    words = head_words(head["domain"], found.size, found.root)
    if not is_signed(found.node_key, head["signature"], words):
        raise Bad(f"{where}: a head of {head['domain']} isn't signed by its node", None)
    return found


def _opened(where: str, said: Mapping[str, Any], entry: Sequence[Any]) -> Opened:
    link = Link(*entry)
    digest = hashlib.sha256(entry_text(link).encode()).hexdigest()
    signed = is_signed(said["witness_key"], link.signature, f"coterie-ledger-v1:{digest}")
    if digest != link.hash or not signed or link.kind != "release":
        raise Bad(
            f"{where}: entry {link.index} isn't a release that {said['witness']} signed", None
        )
    body = strict_json(link.body)
    attempt = body["plan"], body["step"], body["release"], body["attempt"]
    return Opened(said["witness"], said["witness_key"], attempt, dict(body.get("opened", {})))
