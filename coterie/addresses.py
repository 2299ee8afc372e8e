"""Where a domain is reached from this machine, and the certificates its address is trusted by."""

from pathlib import Path
from urllib.parse import urlsplit

from coterie.home import Home
from domains.folder import DomainFolder, DomainSettings
from network.tls import (
    CERTIFICATE,
    KEY,
    create_certificate,
    pin_of,
    trust_files,
    trust_own_server,
)


def url_of(settings: DomainSettings) -> str:
    """Where this machine reaches the node."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    return f"{'https' if settings.tls else 'http'}://{host}:{settings.port}"


def trust_own(folder: DomainFolder) -> None:
    """Let this process take the certificate in the domain's folder as the node's."""
    settings = folder.settings()
    if settings.tls:
        trust_own_server(url_of(settings), folder.path)


def trust_hub(folder: DomainFolder, hub: str, certificate: Path | None) -> None:
    """Take the hub's certificate, and show ours where it asks its callers for theirs.

    Raises:
        TlsError: a file can't be read or used.
    """
    own = (folder.path / CERTIFICATE, folder.path / KEY)
    has_own = all(each.exists() for each in own)
    if certificate is not None or has_own:
        trust_files(hub, certificate, *(own if has_own else ()))


def renew_certificate(home: Home, name: str) -> None:
    """A new TLS key, certificate and signing request for the domain; the node must restart."""
    folder = home.domain(name)
    settings = folder.settings()
    public = urlsplit(settings.public_url or "").hostname
    hosts = [*([public] if public else []), name, settings.host, "localhost", "127.0.0.1"]
    pem = create_certificate(folder.path, f"coterie {name}", hosts)
    shared = home.certificate(name)
    shared.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    shared.write_text(pem)


def certificate_of(folder: DomainFolder) -> dict[str, str]:
    """What people elsewhere are given to trust the address by, if they need anything.

    Behind a proxy that is what the owner put into `proxy.pem`, if anything.
    """
    settings = folder.settings()
    if settings.proxies:
        proxy = folder.path / "proxy.pem"
        return {"certificate": proxy.read_text()} if proxy.exists() else {}
    pin = pin_of(folder.path) if settings.tls else None
    return {} if pin is None else {"certificate": pin}
