"""A domain node: Syft's data site with the Coterie service, behind the gate, as one process.

`coterie domain up` runs it in a process of its own and sees to it that there is only one.
"""

import contextlib
import gc
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domains.folder import DomainFolder, DomainSettings, FolderError, public_hex

if TYPE_CHECKING:
    from fastapi import FastAPI
    from syft.server.datasite import Datasite


_NEEDED_DISK = 2**26


def serve(path: Path, when_ready: Callable[[], object] = lambda: None) -> None:
    """Serve the domain in `path` until it is told to stop.

    Args:
        when_ready: called once everything is loaded and checked, before the port opens.

    Raises:
        FolderError, DeclarationError, InteractionsError, LedgerError: before the port opens, so
            a node that can't keep its promise doesn't start.
    """
    gc.disable()  # while Syft loads, collecting finds nothing and takes a fifth of the start
    from network.gate import log_as_json, serve_app

    folder = DomainFolder(path)
    settings = folder.settings()
    log_as_json()
    # Syft prints its database's address, password included, and callers' errors as they come.
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        app = build_app(folder, settings)
        gc.freeze()
        gc.enable()
        when_ready()
        tls = folder.path if settings.tls else None
        serve_app(app, settings.host, settings.port, tls, settings.proxies)


def build_app(folder: DomainFolder, settings: DomainSettings) -> "FastAPI":
    """The node's HTTP app: data sets loaded, ledger recovered, mocks published, gate closed."""
    from syft.server.credentials import SyftSigningKey

    from domains.accounts import Accounts
    from domains.answering import Answering
    from domains.dataset import load_datasets
    from domains.desk import Desk
    from domains.participation import Participation
    from domains.paths import paths_of
    from network.gate import open_app
    from policies.ledger import Ledger

    datasets = load_datasets(folder)
    key = folder.node_key()
    ledger = Ledger(folder.ledger_url, settings.name, key)
    server = start_server(folder, settings)
    accounts = Accounts(folder.syft / "accounts.json")
    plans = folder.store / "plans"
    desk = Desk(settings, public_hex(key), ledger, datasets, plans, folder.peers, folder.hubs)
    participation = Participation(
        settings.name,
        key,
        ledger,
        folder.store / "runs",
        desk.why_not_roster,
        folder.path / "spu.toml",
    )
    for service in server.services:
        if isinstance(service, Answering):
            service.accounts, service.desk = accounts, desk
            service.participation = participation
    publish_mocks(server, datasets)

    def why_not_ready() -> str | None:
        free = shutil.disk_usage(folder.path).free
        return None if free >= _NEEDED_DISK else "The disk is almost full."

    app = open_app(
        server,
        paths_of,
        folder.syft,
        SyftSigningKey.from_string(folder.node_key_hex()),
        why_not_ready=why_not_ready,
        why_ended=accounts.why_ended,
    )

    _answer_partners(app, folder, public_hex(key), ledger)

    @asynccontextmanager
    async def lifespan(_: Any) -> Any:
        yield
        participation.close()
        server.stop()

    app.router.lifespan_context = lifespan
    return app


def _answer_partners(app: "FastAPI", folder: DomainFolder, my_key: str, ledger: Any) -> None:
    """The one route that a partner's node may call without an account."""
    from fastapi import HTTPException, Request
    from starlette.concurrency import run_in_threadpool

    from domains.witness import MAX_REQUEST_BYTES, WitnessRefused, answer_heads

    def pinned() -> list[str]:
        return [peer.node_key for peer in folder.peers().values()]

    def answered(body: bytes) -> dict[str, Any]:
        try:
            return answer_heads(body, my_key, pinned, ledger.heads.export)
        except WitnessRefused as error:
            raise HTTPException(403, str(error)) from None

    async def heads(request: Request) -> dict[str, Any]:
        async with app.state.body_of(request, MAX_REQUEST_BYTES) as body:
            return await run_in_threadpool(answered, body)

    app.post("/heads")(heads)


def start_server(folder: DomainFolder, settings: DomainSettings) -> "Datasite":
    """Start Syft's data site in this process on the folder's own database.

    The owner's generated password is read once, at the first start; Syft keeps its hash.
    """
    first = folder.first_password
    password = first.read_text().strip() if first.exists() else secrets.token_hex(32)
    os.environ["SYFT_TEMP_ROOT"] = str(folder.syft.resolve())
    import syft.server.server as syft_server
    from syft.server.credentials import SyftSigningKey
    from syft.server.datasite import Datasite
    from syft.types.uid import UID

    from network.gate import read_store_strictly

    read_store_strictly()
    syft_server.ServiceRegistry = _registry()
    _quiet()
    server = Datasite(
        name=settings.name,
        id=UID.from_string(settings.syft_uid),
        signing_key=SyftSigningKey.from_string(folder.owner_account_key_hex()),
        db_config=_database_of(folder, settings),
        root_email=settings.owner_email,
        root_username=f"{settings.name} owner",
        root_password=password,
        server_side_type="low",
        in_memory_workers=False,
        create_producer=False,
        n_consumers=0,
    )
    first.unlink(missing_ok=True)
    _quiet()
    return server


def _database_of(folder: DomainFolder, settings: DomainSettings) -> Any:
    from sqlalchemy import make_url
    from syft.store.db.postgres import PostgresDBConfig
    from syft.store.db.sqlite import SQLiteDBConfig

    if settings.database == "sqlite":
        return SQLiteDBConfig(filename="syft.db", path=folder.syft)
    url = make_url(folder.database_url)
    return PostgresDBConfig(
        host=url.host,
        port=url.port or 5432,
        user=url.username,
        password=url.password or "",
        database=url.database,
    )


def _registry() -> type:
    """Syft's services and ours, as Syft's own registry dataclass."""
    from syft.serde.serializable import serializable
    from syft.server.service_registry import ServiceRegistry

    from domains.ledger_service import CoterieLedger
    from domains.members_service import CoterieMembers
    from domains.rounds_service import CoterieRounds
    from domains.service import CoterieService
    from domains.tensors_service import CoterieTensors

    @serializable(canonical_name="CoterieServiceRegistry", version=1)
    @dataclass
    class CoterieServiceRegistry(ServiceRegistry):
        coterie: CoterieService
        coterie_rounds: CoterieRounds
        coterie_tensors: CoterieTensors
        coterie_members: CoterieMembers
        coterie_ledger: CoterieLedger

    return CoterieServiceRegistry


def publish_mocks(server: "Datasite", datasets: dict[str, Any]) -> None:
    """Publish each data set as a Syft twin: a mock made from the declaration, a handle as private.

    The private half holds no rows, so that no Syft path can hand any out.
    """
    import pandas as pd
    import syft as sy

    from domains.mock import mock_interactions

    owner = server.root_client
    published = {dataset.name for dataset in owner.api.services.dataset.get_all()}
    for name, dataset in datasets.items():
        if name in published:
            continue
        mock = mock_interactions(dataset.declaration)
        handle = pd.DataFrame({"handle": [f"coterie:{name}"]})
        asset = sy.Asset(name=name, data=handle, mock=mock, mock_is_real=False)
        asset.set_description("Mock: made from the declaration alone, never from rows.")
        owner.upload_dataset(
            sy.Dataset(name=name, description=dataset.declaration.description, asset_list=[asset])
        )


def _quiet() -> None:
    """Syft logs calls with their arguments, and hashes of keys; only our own log is kept."""
    logging.disable(logging.CRITICAL)


def main() -> None:
    try:
        serve(Path(sys.argv[1]))
    except FolderError as error:
        sys.exit(str(error))
    except Exception as error:
        sys.exit(f"The node did not start: {error}")


if __name__ == "__main__":
    main()
