"""Opening the driver's client, in steps that keep the event loop for moments only.

Imports the driver, which takes a while: the store loads this module when it is opened.
"""

from __future__ import annotations

import asyncio
import io
import os
import ssl
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import aioboto3
import aiobotocore
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials
from aiobotocore.httpsession import AIOHTTPSession
from botocore import exceptions as boto
from botocore.utils import get_environ_proxies

from agno_clouddb import __version__
from agno_clouddb.errors import ConfigurationError
from agno_clouddb.stores.dynamodb.calls import CONCURRENCY
from agno_clouddb.stores.dynamodb.wire import Network, Wire

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient

__all__ = ["LOCAL_CREDENTIAL", "open_driver"]

LOCAL_CREDENTIAL = "local"
"""Key and secret for an emulator, which takes any."""

_LARGEST_BODY = 1_000_000  # bytes
_MODELS = ("service-2", "endpoint-rule-set-1")
_DATA = ("endpoints", "partitions", "sdk-default-configuration", "_retry")


async def open_driver(
    store: str,
    stack: AsyncExitStack,
    *,
    region: str | None,
    endpoint_url: str | None,
    local: bool,
    session: aioboto3.Session | None,
    deadline: float,
    slim: bool,
) -> tuple[DynamoDBClient, Wire | None]:
    """Open the driver's client and, where it is wanted, the slim path beside it; no request is sent.

    Args:
        store: the store's name, for errors.
        stack: closes both.
        region: the region; by default that of the environment, the session or its profile.
        endpoint_url: another address than the region's own.
        local: an emulator listens there, which takes any credentials.
        session: the session to use instead of a default one.
        deadline: seconds that a call of the store may take, which a single request must not outlast.
        slim: open the slim path.

    Raises:
        ConfigurationError: region, credentials, profile or endpoint are missing or malformed.
    """
    try:
        used = session if session is not None else await asyncio.to_thread(aioboto3.Session)
        region = region or _region(used, given=session is not None)
        if region is None:
            raise ConfigurationError(
                "no AWS region is known", store=store, remedy="Name one in the URL or in AWS_REGION"
            )
        await _load(used._session)
        pool = _Pool()
        driver: DynamoDBClient = await stack.enter_async_context(
            used.client(
                "dynamodb",
                region_name=region,
                endpoint_url=endpoint_url,
                config=_config(deadline, pool),
                aws_access_key_id=LOCAL_CREDENTIAL if local else None,
                aws_secret_access_key=LOCAL_CREDENTIAL if local else None,
            )
        )
        driver.meta.events.register("before-send.dynamodb", _stream)
        credentials = AioCredentials(LOCAL_CREDENTIAL, LOCAL_CREDENTIAL) if local else await _credentials(used, store)
        pool.network = _network(used._session, driver)
        # Reading the authorities' certificates takes the time of many requests.
        pool.context = await asyncio.to_thread(pool.network.ssl_context)
        if not slim:
            return driver, None
        wire = Wire.open(driver, credentials, pool.network, pool.context, store)
        stack.push_async_callback(wire.aclose)
        return driver, wire
    except (ValueError, OSError, boto.BotoCoreError) as error:
        raise ConfigurationError(
            f"the client cannot be made: {error}", store=store, remedy="Check region, profile and endpoint"
        ) from error


class _Pool:
    """The driver's connections, made with a context that is at hand: the driver itself would read the authorities'
    certificates at its first request, and keep the event loop for 40 ms.

    Attributes:
        network: how connections are made; None: not known yet.
        context: its context, once the network is known.
        session: what the driver is to make connections by.
    """

    def __init__(self) -> None:
        self.network: Network | None = None
        self.context: ssl.SSLContext | None = None
        pool = self

        class Session(AIOHTTPSession):
            def _create_connector(self, proxy_url: str | None) -> Any:
                if pool.network is None:
                    inherited: Any = super()
                    return inherited._create_connector(proxy_url)
                return pool.network.connector(pool.context)

        self.session = Session


async def _load(session: Any) -> None:
    """Read the driver's models in a thread, one after the other; the session keeps them for its clients."""
    loader = session.get_component("data_loader")
    await asyncio.to_thread(loader.list_available_services, "service-2")
    for model in _MODELS:
        await asyncio.to_thread(loader.load_service_model, "dynamodb", model)
    for name in _DATA:
        await asyncio.to_thread(loader.load_data, name)


def _network(session: Any, driver: DynamoDBClient) -> Network:
    """How the driver itself would make connections."""
    config: Any = driver.meta.config
    verify = session.get_config_variable("ca_bundle")
    return Network(
        connect_timeout=config.connect_timeout,
        read_timeout=config.read_timeout,
        connections=config.max_pool_connections,
        arguments=config.connector_args,
        verify=verify if verify is not None else os.environ.get("REQUESTS_CA_BUNDLE", True),
        client_cert=config.client_cert,
        proxies=config.proxies if config.proxies is not None else get_environ_proxies(driver.meta.endpoint_url),
        proxies_config=config.proxies_config or {},
    )


def _stream(request: Any, **_: Any) -> None:
    # aiohttp warns of large bodies that are given as bytes, and an error filter would make that a failure.
    if isinstance(request.body, bytes) and len(request.body) > _LARGEST_BODY:
        request.body = io.BytesIO(request.body)


def _region(session: aioboto3.Session, *, given: bool) -> str | None:
    # The driver itself does not read AWS_REGION, which every other SDK and the Lambda runtime use.
    named: str | None = session.region_name
    environment = os.environ.get("AWS_REGION")
    return (named or environment) if given else (environment or named)


def _config(deadline: float, pool: _Pool) -> AioConfig:
    # One attempt a request: only `Client.send` knows the deadline, and whether a lost answer may have been a write. A
    # silent connection is given up at half of the deadline, so that there is time for another. A fifth of what a small
    # put costs the client would be spent on checking requests that the service checks again, and on composing the same
    # user agent anew each time.
    return AioConfig(
        parameter_validation=False,
        user_agent=f"agno-clouddb/{__version__} aiobotocore/{aiobotocore.__version__}",
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=deadline / 4,
        read_timeout=deadline / 2,
        max_pool_connections=2 * CONCURRENCY,
        tcp_keepalive=True,
        http_session_cls=pool.session,
    )


async def _credentials(session: aioboto3.Session, store: str) -> Any:
    found: Any = session.get_credentials()
    if (credentials := await found) is None:
        raise ConfigurationError(
            "no AWS credentials were found",
            store=store,
            remedy="Set a profile, environment variables or a role, or name an emulator by endpoint_url",
        )
    return credentials
