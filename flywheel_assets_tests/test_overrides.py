"""Libraries still call the private parts that we override: a new version that does not would undo our bounds unseen."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from flywheel_assets.capture.http.connection import BoundedConnection, Connections
from flywheel_assets.lake.tables import iceberg


def counted(monkeypatch: pytest.MonkeyPatch, kind: type, names: tuple[str, ...]) -> Counter[str]:
    calls: Counter[str] = Counter()

    def watch(name: str) -> Any:
        original = vars(kind)[name]
        called = original.fget if isinstance(original, property) else original

        def counting(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return called(*args, **kwargs)

        return property(counting) if isinstance(original, property) else counting

    for name in names:
        monkeypatch.setattr(kind, name, watch(name))
    return calls


def test_pyiceberg_calls_our_catalog_and_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = counted(monkeypatch, iceberg.StrictCatalog, ("commit_table",))
    checks = counted(monkeypatch, iceberg._Unchanged, ("validate",))
    parses = counted(monkeypatch, iceberg.ParsedOnceCatalog, ("_convert_orm_to_iceberg",))
    looks = counted(monkeypatch, iceberg.TransactionOnce, ("table_metadata",))
    catalog = iceberg.open_catalog(f"sqlite:///{tmp_path / 'catalog.db'}", f"file://{tmp_path}", "house", {})
    rows = pa.table({"number": [1]})
    catalog.create_table("house.numbers", rows.schema)
    table = catalog.load_table("house.numbers")
    with iceberg.TransactionOnce(table) as transaction:
        transaction.append(rows)
    assert commits["commit_table"] == 1
    assert checks["validate"] == 1
    assert parses["_convert_orm_to_iceberg"] >= 1
    assert looks["table_metadata"] >= 1
    assert catalog.load_table("house.numbers").scan().to_arrow().num_rows == 1


def test_uvicorn_calls_our_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    import uvicorn

    names = ("connection_made", "data_received", "on_headers_complete", "on_message_complete", "connection_lost")
    calls = counted(monkeypatch, BoundedConnection, names)

    async def answer(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask() -> int:
        connection = partial(BoundedConnection, connections=Connections(["127.0.0.1"]))
        config = uvicorn.Config(answer, port=0, http=connection, lifespan="off", log_config=None)  # type: ignore[arg-type]
        server = uvicorn.Server(config)
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(trust_env=False) as client:
            status = (await client.get(f"http://127.0.0.1:{port}/")).status_code
        await server.shutdown()
        return status

    assert asyncio.run(ask()) == 204
    assert set(calls) == set(names)


def test_trl_calls_what_our_trainer_overrides() -> None:
    """Training itself is in test_stages; here only that TRL's constructor still asks for both."""
    from trl import DPOTrainer

    called = {
        name for method in vars(DPOTrainer).values() if hasattr(method, "__code__") for name in method.__code__.co_names
    }
    assert {"_prepare_dataset", "_precompute_ref_logps"} <= called
