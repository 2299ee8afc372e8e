"""One byte string for one value, so that a hash or a signature covers its meaning.

JSON in the canonical form of RFC 8785: keys sorted, no spaces, shortest numbers. Two parties who
agree on a value agree on its bytes, whatever library or language wrote them.
"""

import hashlib
from typing import Any

import rfc8785


def canonical(value: Any) -> bytes:
    """The RFC 8785 bytes of a JSON value (dicts, lists, tuples, strings, numbers, bools, None).

    Raises:
        ValueError: the value holds NaN, an infinity, an integer beyond 2^53 or a type JSON lacks.
    """
    return rfc8785.dumps(value)


def sha256_hex(data: bytes) -> str:
    """SHA-256 of `data`, as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()
