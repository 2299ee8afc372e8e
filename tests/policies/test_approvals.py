"""The owner's key and what its signature covers."""

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.approvals import (
    OwnerKeyError,
    create_owner_key,
    load_owner_key,
    owner_key_hex,
    sign_approval,
    sign_submission,
    verify_approval,
    verify_submission,
)

PLAN, OTHER_PLAN = "a" * 64, "b" * 64


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_a_key_survives_its_file(tmp_path: Path, passphrase: str | None) -> None:
    made = create_owner_key(tmp_path / "key.pem", passphrase)
    assert owner_key_hex(load_owner_key(tmp_path / "key.pem", passphrase)) == owner_key_hex(made)


def test_the_file_is_readable_by_its_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create_owner_key(tmp_path / "key.pem", None)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


def test_a_passphrase_encrypts_the_file(tmp_path: Path) -> None:
    create_owner_key(tmp_path / "key.pem", "correct horse")
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (tmp_path / "key.pem").read_bytes()


def test_an_existing_key_is_never_overwritten(tmp_path: Path) -> None:
    create_owner_key(tmp_path / "key.pem", None)
    before = (tmp_path / "key.pem").read_bytes()
    with pytest.raises(OwnerKeyError, match="exists already"):
        create_owner_key(tmp_path / "key.pem", None)
    assert (tmp_path / "key.pem").read_bytes() == before


@pytest.mark.parametrize("passphrase", ["wrong", None])
def test_a_wrong_or_missing_passphrase_is_named(tmp_path: Path, passphrase: str | None) -> None:
    create_owner_key(tmp_path / "key.pem", "correct horse")
    with pytest.raises(OwnerKeyError, match="passphrase"):
        load_owner_key(tmp_path / "key.pem", passphrase)


def test_a_missing_file_a_file_that_is_no_key_and_an_empty_passphrase_are_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(OwnerKeyError, match="Can't read"):
        load_owner_key(tmp_path / "none.pem", None)
    (tmp_path / "junk.pem").write_text("junk")
    with pytest.raises(OwnerKeyError, match="not a PEM key"):
        load_owner_key(tmp_path / "junk.pem", None)
    with pytest.raises(OwnerKeyError, match="empty"):
        create_owner_key(tmp_path / "key.pem", "")


def test_a_signature_holds_for_one_plan_one_domain_and_one_key() -> None:
    key = Ed25519PrivateKey.generate()
    owner, signature = owner_key_hex(key), sign_approval(key, PLAN, "alpha")
    assert verify_approval(owner, PLAN, "alpha", signature)
    assert not verify_approval(owner, OTHER_PLAN, "alpha", signature)
    assert not verify_approval(owner, PLAN, "bravo", signature)
    other = owner_key_hex(Ed25519PrivateKey.generate())
    assert not verify_approval(other, PLAN, "alpha", signature)


def test_a_signature_under_the_bare_hash_is_no_approval() -> None:
    key = Ed25519PrivateKey.generate()
    bare = key.sign(bytes.fromhex(PLAN)).hex()
    assert not verify_approval(owner_key_hex(key), PLAN, "alpha", bare)


def test_submitting_and_approving_are_signed_apart() -> None:
    key = Ed25519PrivateKey.generate()
    public = owner_key_hex(key)
    submitted = sign_submission(key, PLAN, "alpha")
    assert verify_submission(public, PLAN, "alpha", submitted)
    assert not verify_submission(public, PLAN, "bravo", submitted)
    assert not verify_approval(public, PLAN, "alpha", submitted)
    assert not verify_submission(public, PLAN, "alpha", sign_approval(key, PLAN, "alpha"))


@pytest.mark.parametrize(
    ("owner", "plan", "domain", "signature"),
    [
        ("zz", PLAN, "alpha", "00" * 64),
        ("00" * 31, PLAN, "alpha", "00" * 64),
        ("00" * 32, "A" * 64, "alpha", "00" * 64),
        ("00" * 32, PLAN, "", "00" * 64),
        ("00" * 32, PLAN, "alpha", "not hex"),
        ("00" * 32, PLAN, "alpha", ""),
    ],
)
def test_what_cannot_be_a_signature_is_none(
    owner: str, plan: str, domain: str, signature: str
) -> None:
    assert verify_approval(owner, plan, domain, signature) is False


def test_only_a_plan_hash_can_be_signed() -> None:
    with pytest.raises(ValueError, match="64 lower-case hex"):
        sign_approval(Ed25519PrivateKey.generate(), "latest", "alpha")
