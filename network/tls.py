"""TLS between machines: a server's certificate, and whom a client trusts at an address.

A server's folder holds `tls.pem` (its certificate, with the issuers' if there are any), `tls.key`,
`tls.csr` for those who have an authority sign it, and, where clients must show certificates too,
`clients.pem`: those it takes. A client trusts, for one address, the certificate or authority it was
given; for others what its system trusts. Only TLS 1.3 is served (RFC 8446).
"""

import ipaddress
import os
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from urllib.parse import urlsplit

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from network.adapter import Punctual
from network.secrets import secret_file

CERTIFICATE, KEY, REQUEST, CLIENTS = "tls.pem", "tls.key", "tls.csr", "clients.pem"
VALID_DAYS = 397
"""How long a certificate made here holds; authorities and browsers allow no longer."""


class TlsError(Exception):
    """A certificate or key is missing, broken, or doesn't fit; the text says which."""


def create_certificate(folder: Path, name: str, hosts: Sequence[str]) -> str:
    """Make a new key, a self-signed certificate and a signing request; gives the certificate (PEM).

    Args:
        folder: of the server; what lay there of these three is replaced.
        name: the certificate's common name.
        hosts: the names and addresses that clients will call it by.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = x509.SubjectAlternativeName([_general_name(host) for host in dict.fromkeys(hosts)])
    uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(names, critical=False)
        .add_extension(uses, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem = certificate.public_bytes(Encoding.PEM)
    for file, content in (
        (KEY, secret),
        (CERTIFICATE, pem),
        (REQUEST, request.public_bytes(Encoding.PEM)),
    ):
        _write_private(folder / file, content)
    return pem.decode()


def server_context(folder: Path) -> ssl.SSLContext:
    """What a server shows, and whom it takes.

    Raises:
        TlsError: a file is missing or broken.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(secret_file(folder, CERTIFICATE), secret_file(folder, KEY))
        clients = secret_file(folder, CLIENTS)
        if clients.exists():
            _require_for_clients(folder)
            # Those listed, or signed by an authority that is; and the server's own, for its owner:
            # just that, not the issuers who follow it in the file and sign for others too.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.load_verify_locations(clients)
            context.load_verify_locations(cadata=_own(folder))
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise TlsError(
            f"The certificate or key in {folder} can't be used ({type(error).__name__}): make them "
            "again, or put back tls.pem and tls.key."
        ) from None
    return context


def days_left(folder: Path) -> int:
    """Whole days until the server's certificate expires; negative if it has.

    Raises:
        TlsError: there is none.
    """
    return (_certificates(folder)[0].not_valid_after_utc - datetime.now(UTC)).days


_known: dict[str, ssl.SSLContext] = {}


def pin_of(folder: Path) -> str | None:
    """What clients should be given to trust this server by, as PEM; None: their system knows it.

    That is the last certificate of the file: the server's own if it is self-signed, or the
    authority that signed it, if it isn't one that everybody knows.
    """
    last = _certificates(folder)[-1]
    constraints = last.extensions.get_extension_for_class(x509.BasicConstraints).value
    if last.issuer != last.subject and not constraints.ca:
        return None
    return last.public_bytes(Encoding.PEM).decode()


def trust_own_server(url: str, folder: Path) -> None:
    """On a server's own machine: take just its own certificate, whatever names are in it.

    Raises:
        TlsError: there is none.
    """
    trust(url, _own(folder), secret_file(folder, CERTIFICATE), secret_file(folder, KEY))
    _known[_origin(url)].check_hostname = False


def _require_for_clients(folder: Path) -> None:
    """Where callers show certificates, the owner's own client shows the server's."""
    try:
        found = _certificates(folder)[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return
    if ExtendedKeyUsageOID.CLIENT_AUTH not in found.value:
        raise TlsError(
            f"{folder / CERTIFICATE} was signed for servers only. With {CLIENTS} the owner's client"
            " shows it too: have it signed for clients as well, or keep the self-made one and put a"
            " proxy before the node."
        )


def _own(folder: Path) -> str:
    """The server's own certificate, PEM, without its issuers'."""
    return _certificates(folder)[0].public_bytes(Encoding.PEM).decode()


def _certificates(folder: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(secret_file(folder, CERTIFICATE).read_bytes())
    except (OSError, ValueError):
        raise TlsError(
            f"{folder / CERTIFICATE} is missing or no certificate: coterie domain certificate"
        ) from None


def trust(
    url: str, certificate: str | None, shown: Path | None = None, shown_key: Path | None = None
) -> None:
    """From now on take only this certificate (or what this authority signed) at an address.

    Args:
        certificate: PEM text; None: what the system trusts.
        shown: file of the certificate that this client shows, where the server asks for one.
        shown_key: file of its key.

    Raises:
        TlsError: not certificates, or the key doesn't fit.
    """
    try:
        context = ssl.create_default_context(cadata=certificate)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            # The certificate itself may be what is trusted, whoever signed it.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if shown is not None:
            context.load_cert_chain(shown, shown_key)
    except (OSError, ssl.SSLError, ValueError):
        raise TlsError(f"What was given to trust {url} by is no usable certificate.") from None
    _known[_origin(url)] = context


def trust_files(
    url: str, certificate: Path | None, shown: Path | None = None, shown_key: Path | None = None
) -> None:
    """As `trust`, with the certificate in a file.

    Raises:
        TlsError: a file can't be read, or what is in it can't be used.
    """
    try:
        text = None if certificate is None else certificate.read_text()
    except (OSError, ValueError) as error:
        raise TlsError(f"{certificate} can't be read ({type(error).__name__}).") from None
    trust(url, text, shown, shown_key)


def is_trusted(url: str) -> bool:
    """Whether this process was told whom to trust at an address."""
    return _origin(url) in _known


_NO_COOKIES = DefaultCookiePolicy(allowed_domains=())


def secured(session: requests.Session, url: str) -> requests.Session:
    """The session, with what is trusted at this address, for requests that aren't redirected and
    answers that come in time.
    """
    # Told not to follow a redirect, requests reads all of its body all the same, and unpacks it.
    session.get_redirect_target = _nowhere  # type: ignore[assignment]
    session.cookies.set_policy(_NO_COOKIES)
    origin = _origin(url)
    context, mounted = _known.get(origin), session.adapters.get(origin)
    if not isinstance(mounted, Punctual) or mounted.context is not context:
        session.mount(origin, Punctual(context))
    return session


def is_local(host: str | None) -> bool:
    """Whether this names the machine itself."""
    if host is None:
        return False
    if host == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


def keeps_secrets(url: str) -> bool:
    """Whether a password may be sent to this address: encrypted, or not leaving this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or is_local(parts.hostname)


def _nowhere(_: requests.Response) -> None:
    return None


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}/".lower()


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_private(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
