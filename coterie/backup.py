"""Back-ups of a domain: one file with all that its node keeps, and putting it back.

A back-up holds keys, passwords' hashes and private data: keep it as safe as the node itself. What
is put back is compared with the heads that partners co-signed, since an older ledger forgets
charges. Secret shares of rounds under way are left out: they are never needed again.
"""

import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import sqlalchemy
from sqlalchemy import MetaData, Table
from sqlalchemy.exc import SQLAlchemyError

from coterie.heard import NOBODY, Partners, RestoreRefused, gathered
from coterie.home import Home
from coterie.processes import running
from domains.folder import DomainFolder, public_hex, require_name
from policies.ledger.migrations import migrate
from policies.verify import verify

_FORMAT = "coterie-backup-v1"
_MANIFEST, _TABLES = "backup.json", "tables.json"
_DATABASES = ("syft/syft.db", "syft/calls.db", "syft/logins.db", "ledger.db")
_SHARES = (".held", ".masked", ".receipt", ".spare")
_PLAIN_ENTRIES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
_LEFT_OUT = ("-wal", "-shm", ".new", ".log", ".pid")


def back_up(home: Home, name: str, out: Path) -> int:
    """Write everything of a domain's node to one file (0600), also while it runs; gives its size.

    The ledger comes last, so that it knows of everything else in the file. The file has its name
    only once it is whole: what a kill leaves behind ends in `.part`.

    Raises:
        FolderError: no such domain, or the file exists.
    """
    folder = home.domain(name)
    settings = folder.settings()
    if out.exists():
        raise _taken(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    coming = out.with_name(out.name + ".part")
    coming.unlink(missing_ok=True)
    descriptor = os.open(coming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    about = {"format": _FORMAT, "name": name, "node_key": public_hex(folder.node_key())}
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
        _add(archive, _MANIFEST, json.dumps(about).encode())
        for path in _files(folder.path):
            with suppress(FileNotFoundError):  # a running node drops what it needs no more
                archive.add(path, str(path.relative_to(folder.path)), recursive=False)
        if settings.database == "postgres":
            _add(archive, _TABLES, json.dumps(_tables_of(folder.database_url)).encode())
        for each in _DATABASES:
            if (folder.path / each).exists():
                _add(archive, each, _snapshot(folder.path / each))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(coming, out)
    except FileExistsError:
        raise _taken(out) from None
    coming.unlink()
    return out.stat().st_size


def _taken(out: Path) -> RestoreRefused:
    return RestoreRefused(f"{out} exists. Choose another file.")


def restore(
    home: Home,
    name: str,
    archive: Path,
    *,
    heads: Sequence[Path] = (),
    partners: Partners = NOBODY,
    unheard: Sequence[str] = (),
) -> str:
    """Put a back-up back, unless a partner co-signed a newer ledger; gives the verdict's text.

    A folder that lies there is kept beside, and its ledger counts as a witness too; its pins stay.
    The node gets a new epoch: no call signed before is taken again.

    Args:
        heads: what partners exported (`coterie ledger heads`).
        partners: how the others' nodes are asked.
        unheard: partners that the owner does without.

    Raises:
        RestoreRefused: the ledger is older than one that was co-signed, a pinned partner wasn't
            heard, the node runs, or the file isn't such a back-up.
    """
    require_name(name)
    folder = home.domain(name)
    if folder.path.exists() and running(folder.pid_file) is not None:
        raise RestoreRefused(f"{name} is running. Stop it first: coterie domain stop {name}")
    folder.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = DomainFolder(folder.path.with_name(f".{name}.restored"))
    _take_up(staged.path, folder.path)
    shutil.rmtree(staged.path, ignore_errors=True)
    try:
        _unpack(archive, staged.path, name)
        _keep_own_word(staged, folder)
        text = _checked(staged, folder, heads, partners, unheard)
        if (staged.path / _TABLES).exists():
            _restore_tables(staged.database_url, _kept_tables(staged))
            (staged.path / _TABLES).unlink()
        (staged.path / _MANIFEST).unlink()
        settings = staged.settings().model_copy(update={"epoch": uuid4().hex})
        staged.write_settings(settings)
        if folder.path.exists():
            os.replace(folder.path, folder.path.with_name(f".{name}.before-{time.time_ns()}"))
        os.replace(staged.path, folder.path)
    finally:
        shutil.rmtree(staged.path, ignore_errors=True)
    return text


def _take_up(staged: Path, folder: Path) -> None:
    """Put back the folder that a restoring set aside before it was killed: it is the present one,
    whose pins and ledger count."""
    aside = sorted(folder.parent.glob(f".{folder.name}.before-*"))
    if staged.exists() and aside and not folder.exists():
        os.replace(aside[-1], folder)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        left_out = any(part.endswith(_LEFT_OUT) for part in inside.parts)
        if path.is_symlink() or path.suffix in _SHARES or left_out:
            continue
        if str(inside) not in _DATABASES and (path.is_file() or path.is_dir()):
            yield path


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
    archive.addfile(entry, io.BytesIO(content))


def _snapshot(path: Path) -> bytes:
    """A database file as one moment left it, while others write (SQLite's backup API).

    It is taken in memory, so that a kill leaves no copy behind.
    """
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(":memory:")) as copy:
        source.backup(copy)
        return copy.serialize()


def _unpack(archive: Path, target: Path, name: str) -> None:
    target.mkdir(mode=0o700)
    try:
        with tarfile.open(archive, "r:") as found:
            for entry in found:
                # A sparse file is a file to tarfile, of any size that its head claims, and one of
                # negative size leads back to itself.
                if entry.type not in _PLAIN_ENTRIES or entry.size < 0:
                    raise RestoreRefused(f"{archive} holds more than files and folders.")
                found.extract(entry, target, filter="data")
        about = dict(json.loads((target / _MANIFEST).read_text()))
    except FileNotFoundError:
        raise RestoreRefused(
            f"There is no back-up at {archive}, or it has no {_MANIFEST}."
        ) from None
    except (tarfile.TarError, OSError, ValueError, TypeError, RecursionError) as error:
        raise RestoreRefused(f"{archive} can't be read ({type(error).__name__}).") from None
    if about.get("format") != _FORMAT or about.get("name") != name:
        raise RestoreRefused(f"{archive} is no back-up of {name}: it names {about.get('name')!r}.")
    for path in [target, *target.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)


def _keep_own_word(staged: DomainFolder, present: DomainFolder) -> None:
    """Whom the owner trusts is what the folder that lies here says, not what the back-up says.

    Whoever could change the back-up could have pinned keys of her own; and a partner that was
    unpinned, or has another key, since it was written stays so.

    Raises:
        RestoreRefused: the back-up is of another domain of that name.
    """
    if not present.settings_file.exists():
        return
    mine, found = present.settings(), staged.settings()
    if found.server_uid != mine.server_uid:
        raise RestoreRefused(
            f"The back-up is of another domain named {mine.name} than the one in {present.path}. "
            "Move that folder away to put this one in its place."
        )
    kept = {"peers": mine.peers, "owner_key": mine.owner_key}
    staged.write_settings(found.model_copy(update=kept))


def _checked(
    staged: DomainFolder,
    present: DomainFolder,
    heads: Sequence[Path],
    partners: Partners,
    unheard: Sequence[str],
) -> str:
    node_key = public_hex(staged.node_key())
    peers = set(staged.settings().peers)
    with tempfile.TemporaryDirectory() as place:
        said = gathered(staged, heads, partners, Path(place))
        missing = sorted(peers - said - set(unheard))
        if missing:
            raise RestoreRefused(
                f"Not heard: {', '.join(missing)}. An older ledger would forget charges that they "
                "know of. Give their `coterie ledger heads` with --heads; or --hub to ask them, "
                "with --certificate for each that no public authority signed. If a partner is "
                "gone for good, --unheard NAME."
            )
        ledger = _ledger_of(staged, Path(place))
        known = Path(place) / "heads"
        verdict = verify(ledger, node_key, None, known if said else None)
        if not verdict.ok:
            raise RestoreRefused(f"This back-up isn't put back. {verdict.text}")
        entries = verdict.entries
    if present.ledger_file.exists() and (there := _size(present.ledger_file)) > entries:
        raise RestoreRefused(
            f"The ledger that lies in {present.path} has {there} entries, the back-up's {entries}: "
            "putting it back would forget what came since. Keep the newer one."
        )
    if present.settings_file.exists():
        return verdict.text
    pinned = [f"{peer} {keys.node_key}" for peer, keys in staged.settings().peers.items()]
    return "\n".join(
        [verdict.text, *(f"Pinned by the back-up; compare: {each}" for each in sorted(pinned))]
    )


def _ledger_of(staged: DomainFolder, place: Path) -> Any:
    if staged.ledger_file.exists():
        return staged.ledger_file
    tables = _kept_tables(staged)
    ledger = place / "ledger.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{ledger}")
    with engine.begin() as connection:
        migrate(connection)
        _fill(connection, {n: rows for n, rows in tables.items() if n.startswith("ledger")})
    engine.dispose()
    return ledger


def _kept_tables(staged: DomainFolder) -> dict[str, list[dict[str, Any]]]:
    """The rows of a back-up from Postgres, by table.

    Raises:
        RestoreRefused: they aren't there or are something else.
    """
    try:
        found = json.loads((staged.path / _TABLES).read_text())
        return {
            str(name): [{c: _typed(v) for c, v in row.items()} for row in rows]
            for name, rows in found.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        raise RestoreRefused("The back-up's tables can't be read, or are missing.") from None


def _size(ledger: Path) -> int:
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as line:
        return int(line.execute("SELECT COUNT(*) FROM ledgerentry").fetchone()[0])


def _tables_of(url: str) -> dict[str, list[dict[str, Any]]]:
    """Every table's rows as one moment left them."""
    engine = sqlalchemy.create_engine(url, isolation_level="REPEATABLE READ")
    with engine.connect() as line:
        schema = MetaData()
        schema.reflect(line)
        found = {
            table.name: [
                {column: _plain(value) for column, value in row.items()}
                for row in line.execute(table.select()).mappings()
            ]
            for table in schema.sorted_tables
        }
    engine.dispose()
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return {"time": value.isoformat()}
    if isinstance(value, UUID):
        return {"uuid": str(value)}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    return {"json": value} if isinstance(value, dict | list) else value


def _typed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "time":
            return datetime.fromisoformat(content)
        case "uuid":
            return UUID(content)
        case "bytes":
            return bytes.fromhex(content)
    return content


def _restore_tables(url: str, tables: Mapping[str, list[dict[str, Any]]]) -> None:
    """Make the tables in an empty database and fill them, in one transaction."""
    from syft.store.db.schema import PostgresBase, create_table

    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        if sqlalchemy.inspect(connection).get_table_names():
            raise RestoreRefused("The database isn't empty. Give the back-up one of its own.")
        migrate(connection)
        for name in tables:
            if not name.startswith("ledger"):
                # Syft declares a table only when it first uses it; all of them have one shape.
                create_table(SimpleNamespace(__canonical_name__=name), connection.dialect)
        PostgresBase.metadata.create_all(connection)
        _fill(connection, tables)
    engine.dispose()


def _fill(connection: sqlalchemy.Connection, tables: Mapping[str, list[dict[str, Any]]]) -> None:
    schema = MetaData()
    schema.reflect(connection)
    unknown = sorted(set(tables) - set(schema.tables))
    if unknown:
        raise RestoreRefused(f"The back-up has tables that aren't known here: {unknown[0][:60]}")
    for table in schema.sorted_tables:
        if table.name == "ledgerversion":
            continue
        for row in tables.get(table.name, []):
            try:
                connection.execute(Table.insert(table), row)
            except (SQLAlchemyError, ValueError, OverflowError) as error:
                raise RestoreRefused(
                    f"A row of the back-up doesn't fit its table ({type(error).__name__})."
                ) from None
