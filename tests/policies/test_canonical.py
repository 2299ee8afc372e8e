"""Canonical JSON: one value, one byte string."""

import math

import pytest

from policies.canonical import canonical, sha256_hex


def test_order_of_keys_and_spelling_of_numbers_make_no_difference() -> None:
    assert canonical({"b": 1.0, "a": [1e-5, True, None]}) == b'{"a":[0.00001,true,null],"b":1}'
    assert canonical({"b": 1, "a": (1e-5, True, None)}) == canonical(
        {"a": [1e-5, True, None], "b": 1.0}
    )


def test_text_is_utf8_with_only_the_necessary_escapes() -> None:
    assert canonical('ü"\n') == b'"\xc3\xbc\\"\\n"'


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**60, {1: "a"}, object()])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text is the library's
        canonical({"x": value} if not isinstance(value, dict) else value)


def test_hash_is_sha256_in_hex() -> None:
    assert sha256_hex(b"abc").startswith("ba7816bf8f01cfea")
