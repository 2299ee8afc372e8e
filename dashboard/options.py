"""What a dashboard is started with: one domain's node, or the hub; never a credential."""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from network.hub import Card
from network.tls import is_trusted, trust


@dataclass(frozen=True)
class Options:
    """Where people sign in.

    Attributes:
        domain: the partner whose dashboard this is; None: the hub's directory is shown.
        url: of its node, http(s)://HOST:PORT.
        node_key: the node's verify key, 64 hex digits; None: the first answer's is taken.
        certificate: file of the certificate that the node shows.
        hub: the hub's address; None: this is one domain's dashboard.
        hub_certificate: file of the certificate that the hub shows.
        certificates: folder of NAME.pem, the certificates that the directory's nodes show.
        keys: file of the nodes' verify keys as their owners gave them; None: the hub's are taken.
        runs: folder of this machine's runs, for its scientist: only her own plans' are shown.
        hours: how long a session lasts at most.
        idle_minutes: how long a session lasts without a click.
    """

    domain: str | None
    url: str | None
    node_key: str | None
    certificate: Path | None
    hub: str | None
    hub_certificate: Path | None
    certificates: Path | None
    keys: Path | None
    runs: Path | None
    hours: float
    idle_minutes: float

    @property
    def title(self) -> str:
        return f"Coterie: {self.domain}" if self.domain else "Coterie"

    def trust_certificates(self) -> None:
        """Take the given certificates as those of the node or the hub, once."""
        for url, file in ((self.url, self.certificate), (self.hub, self.hub_certificate)):
            if url is not None and file is not None and not is_trusted(url):
                trust(url, file.read_text())

    def certificate_of(self, name: str) -> str | None:
        """The certificate (PEM) of a domain in the directory, if the folder has one."""
        file = None if self.certificates is None else self.certificates / f"{name}.pem"
        return file.read_text() if file is not None and file.exists() else None

    def doubts(self, cards: Mapping[str, Card]) -> dict[str, str]:
        """The listed domains whose keys aren't as the file has them: 'other_key' or 'no_key'.

        Raises:
            OptionsError: the file isn't such a file.
        """
        if self.keys is None:
            return {}
        known = read_keys(self.keys)
        return {
            name: "other_key" if name in known else "no_key"
            for name, card in cards.items()
            if known.get(name) != card.node_key
        }


class OptionsError(Exception):
    """A file that the dashboard was started with can't be used."""


def read_keys(file: Path) -> dict[str, str]:
    """Node keys by domain: {DOMAIN: KEY}, or the accounts file that invitations write.

    Raises:
        OptionsError: it is missing or isn't such a file.
    """
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
        found = {n: e["node_key"] if isinstance(e, dict) else e for n, e in listed.items()}
    except (OSError, ValueError, AttributeError, KeyError):
        found = {"": ""}
    if not all(isinstance(k, str) and re.fullmatch("[0-9a-f]{64}", k) for k in found.values()):
        raise OptionsError(f"{file} must be JSON: {{DOMAIN: NODE KEY (64 hex digits)}}.")
    return found


def read_options(arguments: Sequence[str]) -> Options:
    """The options of a command line; exits with a usage message on others."""
    parser = argparse.ArgumentParser(prog="dashboard")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--domain", help="name of the domain; needs --url")
    where.add_argument("--hub", help="the hub's address")
    parser.add_argument("--url", help="http(s)://HOST:PORT of the domain's node")
    parser.add_argument("--node-key", help="the node's verify key, if you know it: 64 hex digits")
    parser.add_argument("--certificate", type=Path, help="file of the node's certificate")
    parser.add_argument("--hub-certificate", type=Path, help="file of the hub's certificate")
    parser.add_argument("--certificates", type=Path, help="folder of NAME.pem, by domain")
    parser.add_argument("--keys", type=Path, help="JSON file of the nodes' keys, by domain")
    parser.add_argument("--runs", type=Path, help="folder of this machine's runs")
    parser.add_argument("--hours", type=float, default=8.0, help="how long a session lasts")
    parser.add_argument(
        "--idle-minutes", type=float, default=30.0, help="how long one lasts without a click"
    )
    found = parser.parse_args(arguments)
    if found.domain is not None and found.url is None:
        parser.error("--domain needs --url")
    return Options(**vars(found))
