"""`coterie rules`: an owner's standing rules for one data set: look, preview, sign, change."""

from pathlib import Path
from typing import Annotated

import typer

from coterie.commands.output import (
    HomeOption,
    JsonOption,
    console,
    fail,
    home_of,
    print_json,
    print_table,
    told,
)
from coterie.exit_codes import ExitCode
from coterie.owner import Owner
from coterie.partners import open_owner

app = typer.Typer()
Domain = Annotated[str, typer.Option("--domain", help="The owner's domain.")]
DataSet = Annotated[str, typer.Option("--data", help="The data set that the rules are for.")]
File = Annotated[Path, typer.Argument(help="The whole new policy.toml.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
Passphrase = Annotated[bool, typer.Option(help="Ask for the passphrase of the owner's key.")]


@app.command()
@told
def show(domain: Domain, data: DataSet, json_: JsonOption = False, home: HomeOption = None) -> None:
    """The policy file as it lies on the node, whether it applies, and every change of it.

    Example: coterie rules show --domain north --data ratings
    """
    rules = open_owner(home_of(home), domain, with_key=False).rules(data)
    if json_:
        print_json(rules)
        return
    console.print(rules["text"], markup=False, highlight=False)
    if not rules["applied"]:
        why = (
            rules["problem"]
            or "It was changed on the node's machine; it applies from the next start."
        )
        console.print(why, markup=False, highlight=False)
    print_table(
        "Changes, newest first",
        ["when", "by", "signed", "why", "what"],
        [
            [
                c["time"],
                c["by"],
                "yes" if c["owner_key"] else "no",
                c["reason"],
                _what(c["changes"]),
            ]
            for c in rules["history"]
        ],
    )


@app.command()
@told
def preview(
    file: File,
    domain: Domain,
    data: DataSet,
    json_: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """What another policy file would say of every open plan; nothing changes.

    Example: coterie rules preview policy.toml --domain north --data ratings
    """
    found = open_owner(home_of(home), domain, with_key=False).preview_rules(data, _read(file))
    if json_:
        print_json(found)
        return
    print_table(
        f"Open plans at {domain}",
        ["plan", "name", "status", "rules broken now", "rules broken then"],
        [
            [p["plan_hash"][:12], p["name"], p["status"], _rules(p["now"]), _rules(p["then"])]
            for p in found
        ],
    )


@app.command()
@told
def sign(
    file: File,
    domain: Domain,
    data: DataSet,
    reason: Reason = "",
    passphrase: Passphrase = False,
    home: HomeOption = None,
) -> None:
    """Print the owner's signature under a new policy file without sending it.

    Example: coterie rules sign policy.toml --domain north --data ratings
    """
    owner = _opened(home, domain, passphrase)
    typer.echo(owner.sign_rules(data, _read(file), reason))


@app.command()
@told
def write(
    file: File,
    domain: Domain,
    data: DataSet,
    reason: Reason = "",
    passphrase: Passphrase = False,
    home: HomeOption = None,
) -> None:
    """Sign a new policy file and let it apply from now on.

    Example: coterie rules write policy.toml --domain north --data ratings --reason "fewer rounds"
    """
    owner, text = _opened(home, domain, passphrase), _read(file)
    rules = owner.write_rules(data, text, owner.sign_rules(data, text, reason))
    console.print(f"{domain}: {_what(rules['history'][0]['changes'])}", markup=False)


def _opened(home: Path | None, domain: str, passphrase: bool) -> Owner:
    secret = typer.prompt("Passphrase", hide_input=True) if passphrase else None
    return open_owner(home_of(home), domain, passphrase=secret)


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise fail(f"{file} can't be read as text: {error}", ExitCode.USAGE) from None


def _what(changes: list[list[str]]) -> str:
    return "; ".join(f"{name}: {old} -> {new}" for name, old, new in changes) or "words only"


def _rules(broken: list[dict[str, str]]) -> str:
    return ", ".join(sorted({each["rule"] for each in broken})) or "none"
