"""AsyncDynamoDb and AsyncFirestoreDb: made from what agno's own DynamoDb and FirestoreDb are made from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agno.utils.string import generate_id

from agno_clouddb.errors import ConfigurationError
from agno_clouddb.integrations.agno.database import AsyncCloudDb
from agno_clouddb.integrations.agno.names import TABLES, prefix_of
from agno_clouddb.stores.base import Store

if TYPE_CHECKING:
    import aioboto3
    from google.auth.credentials import Credentials

__all__ = ["AsyncDynamoDb", "AsyncFirestoreDb"]

_OPTIONS = ("deadline", "consistency", "max_drift", "ttl", "cache", "history_runs")
"""What the two take besides, of ``connect`` and AsyncCloudDb."""


class AsyncDynamoDb(AsyncCloudDb):
    """AsyncCloudDb over DynamoDB, in place of agno's ``DynamoDb``. It has tables of its own and leaves agno's alone.

    Args:
        db_client: not taken: a boto3 client blocks the event loop.
        region_name: the AWS region; by default AWS_REGION's, or the profile's.
        aws_access_key_id: an access key; by default whatever the environment has: a profile, a role, SSO.
        aws_secret_access_key: its secret.
        aws_session_token: of temporary credentials.
        session: an ``aioboto3.Session``, instead of region and keys.
        endpoint_url: another address than the region's own, such as an emulator's.
        prefix: what the names of tables begin with; by default what the given names of agno's tables begin with and
            ``clouddb_``, so ``agno_clouddb_`` where none is given.
        create_tables: create missing tables before the first use.
        id: what agno knows this database by.
        **others: names of agno's tables, such as ``session_table``, from which the prefix is taken; options of
            ``connect``; or ``history_runs`` of AsyncCloudDb.

    Raises:
        ConfigurationError: an argument makes no sense here; says what to give instead.
    """

    def __init__(
        self,
        db_client: object = None,
        region_name: str | None = None,
        aws_access_key_id: str | None = None,
        aws_secret_access_key: str | None = None,
        *,
        aws_session_token: str | None = None,
        session: aioboto3.Session | None = None,
        endpoint_url: str | None = None,
        prefix: str | None = None,
        create_tables: bool = True,
        id: str | None = None,
        **others: Any,
    ) -> None:
        if db_client is not None:
            raise ConfigurationError(
                "db_client is a boto3 client, which blocks the event loop",
                remedy="Give region_name, or `session=aioboto3.Session(...)`; and endpoint_url for an emulator",
            )
        keys = {
            "aws_access_key_id": aws_access_key_id,
            "aws_secret_access_key": aws_secret_access_key,
            "aws_session_token": aws_session_token,
        }
        given = {name: value for name, value in keys.items() if value is not None}
        if session is not None and given:
            raise ConfigurationError(f"{', '.join(given)} cannot be given with `session`, which has its own")
        if bool(aws_access_key_id) is not bool(aws_secret_access_key):
            raise ConfigurationError("aws_access_key_id and aws_secret_access_key go together")
        names, options = _sorted_out(others, "table")
        prefix = prefix_of(names) if prefix is None else prefix
        deadline = options.get("deadline", 10.0)

        def store() -> Store:
            import aioboto3

            from agno_clouddb.stores.dynamodb.store import DynamoDBStore

            used = session
            if used is None and given:
                used = aioboto3.Session(
                    aws_access_key_id=aws_access_key_id,
                    aws_secret_access_key=aws_secret_access_key,
                    aws_session_token=aws_session_token,
                    region_name=region_name,
                )
            return DynamoDBStore(region_name, endpoint_url=endpoint_url, prefix=prefix, session=used, deadline=deadline)

        named = id or generate_id(f"dynamodb://{region_name or ''} {endpoint_url or ''} {prefix}")
        super().__init__(store, provision=create_tables, id=named, prefix=prefix, **names, **options)


class AsyncFirestoreDb(AsyncCloudDb):
    """AsyncCloudDb over Firestore, in place of agno's ``FirestoreDb``. It leaves agno's collections alone.

    Args:
        db_client: an ``AsyncClient``, which serves one event loop; a synchronous one is not taken.
        project_id: the Google Cloud project; by default that of the environment's credentials.
        database: the database's id.
        credentials: instead of the environment's.
        emulator_host: ``HOST:PORT`` of an emulator; by default FIRESTORE_EMULATOR_HOST.
        prefix: what the names of collections begin with; by default what the given names of agno's collections begin
            with and ``clouddb_``, so ``agno_clouddb_`` where none is given.
        create_collections: see that what is needed is there before the first use; indexes are deployed by other means.
        id: what agno knows this database by.
        **others: names of agno's collections, such as ``session_collection``, from which the prefix is taken; options
            of ``connect``; or ``history_runs`` of AsyncCloudDb.

    Raises:
        ConfigurationError: an argument makes no sense here; says what to give instead.
    """

    def __init__(
        self,
        db_client: Any = None,
        project_id: str | None = None,
        *,
        database: str = "(default)",
        credentials: Credentials | None = None,
        emulator_host: str | None = None,
        prefix: str | None = None,
        create_collections: bool = True,
        id: str | None = None,
        **others: Any,
    ) -> None:
        from google.cloud.firestore import AsyncClient

        if db_client is not None and not isinstance(db_client, AsyncClient):
            raise ConfigurationError(
                f"db_client is a {type(db_client).__name__}, which blocks the event loop",
                remedy="Give project_id, and credentials where need be; or a google.cloud.firestore.AsyncClient",
            )
        if db_client is not None and credentials is not None:
            raise ConfigurationError("credentials cannot be given with `db_client`, which has its own")
        names, options = _sorted_out(others, "collection")
        prefix = prefix_of(names) if prefix is None else prefix
        deadline = options.get("deadline", 10.0)
        project = project_id or (os.environ.get("GOOGLE_CLOUD_PROJECT") if db_client is None else None)

        def store() -> Store:
            from agno_clouddb.stores.firestore.store import FirestoreStore

            client = db_client
            if client is None and credentials is not None:
                client = AsyncClient(project=project, database=database, credentials=credentials)
            if client is not None:
                return FirestoreStore(client=client, prefix=prefix, deadline=deadline)
            return FirestoreStore(project, database, prefix=prefix, emulator_host=emulator_host, deadline=deadline)

        named = id or generate_id(f"firestore://{project or ''}/{database} {prefix}")
        super().__init__(store, provision=create_collections, id=named, prefix=prefix, **names, **options)


def _sorted_out(others: Mapping[str, Any], what: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Names of agno's tables, by the argument of its databases, and options of ``connect``."""
    arguments = {f"{each.removesuffix('table')}{what}": each for each in TABLES}
    names = {arguments[name]: value for name, value in others.items() if name in arguments and value is not None}
    options = {name: value for name, value in others.items() if name not in arguments}
    if unknown := sorted(options.keys() - set(_OPTIONS)):
        raise ConfigurationError(
            f"{', '.join(unknown)} make no sense here",
            remedy=f"There are {', '.join(_OPTIONS)}; and AsyncCloudDb takes several clouds at once",
        )
    return names, options
