"""What a password must be, before Syft hashes it (bcrypt)."""

MIN_PASSWORD = 12
MAX_PASSWORD_BYTES = 72
"""bcrypt looks at no more bytes than these (OpenBSD, crypt_blowfish)."""
_MIN_DIFFERENT = 6


def why_weak(password: str, email: str) -> str | None:
    """Why a password can't be taken, or None. Length counts, not kinds (NIST SP 800-63B, 5.1.1).

    Args:
        email: of the account; its name may not be what the password is made of.
    """
    if len(password) < MIN_PASSWORD:
        return f"A password has at least {MIN_PASSWORD} characters; leave it to `invite`."
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        return f"A password has at most {MAX_PASSWORD_BYTES} bytes; what is beyond isn't checked."
    if len(set(password.lower())) < _MIN_DIFFERENT:
        return f"A password has at least {_MIN_DIFFERENT} different characters."
    name = email.partition("@")[0].lower()
    if len(name) >= 3 and name in password.lower() and len(password) - len(name) < MIN_PASSWORD:
        return "A password isn't made of the account's name."
    return None
