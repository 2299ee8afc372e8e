"""A Postgres of our own for tests: on loopback, as an ordinary user, gone afterwards."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy

from coterie.processes import free_ports

MISSING = "Postgres 15 isn't installed (Debian: apt-get install postgresql-15)"


def programs() -> Path | None:
    """The folder of Postgres' programs, the newest if there are several."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if found:
        return found[-1].parent
    return Path(on_path).parent if on_path else None


@contextmanager
def running_postgres() -> Iterator[str]:
    """Start a server; gives the URL of its database server, without a database's name."""
    bin_ = programs()
    assert bin_ is not None, MISSING
    folder = Path(tempfile.mkdtemp(prefix="coterie-postgres-"))
    user = _ordinary_user()
    password, port = secrets.token_hex(16), free_ports(1)[0]
    (folder / "password").write_text(password)
    if user is not None:
        for path in (folder, folder / "password"):
            os.chown(path, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)

    def run(*command: str) -> None:
        subprocess.run(command, user=user, cwd=folder, check=True, capture_output=True)

    data = str(folder / "data")
    try:
        run(
            str(bin_ / "initdb"), "--pgdata", data, "--username", "coterie", "--auth",
            "scram-sha-256", "--pwfile", str(folder / "password"), "--encoding", "UTF8",
            "--locale", "C", "--no-sync",
        )  # fmt: skip
        # No test cuts the power, so nothing waits for the disk.
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c max_connections=300"
        options += " -c fsync=off"
        log = str(folder / "log")
        run(str(bin_ / "pg_ctl"), "-D", data, "-o", options, "-l", log, "-w", "start")
        # Who stops it waits for a line to close, so that it also ends with tests that are cut off.
        stop = ["sh", "-c", 'read _; exec "$@"', "sh"]
        stop += [str(bin_ / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "-s", "stop"]
        with subprocess.Popen(
            stop, user=user, cwd=folder, stdin=subprocess.PIPE, start_new_session=True
        ):
            yield f"postgresql+psycopg2://coterie:{password}@127.0.0.1:{port}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def new_database(server: str) -> str:
    """The URL of a fresh, empty database."""
    name = f"ledger_{secrets.token_hex(6)}"
    engine = sqlalchemy.create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return f"{server}/{name}"


def _ordinary_user() -> str | None:
    """Postgres doesn't run as root: whom to start it as, or None for ourselves."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"
