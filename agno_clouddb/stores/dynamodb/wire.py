"""A slim path for the data: requests as JSON, signed and sent over aiohttp, where the driver takes four times as long.

The driver models every request and every answer, and calls its event hooks around each. Here a request is encoded as
it stands, and only what the driver alone knows is taken from it: credentials, which it refreshes, configuration, and
the endpoint. aiodynamo, a client as slim, knows none of these: no profiles and roles, no CA bundles and proxies of the
configuration, no endpoint rules; and it checks no checksums.

Imports aiohttp and the driver, as ``client`` does: load it only where a store is opened.
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import io
import json
import re
import socket
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
from botocore import exceptions as boto
from botocore.httpsession import ProxyConfiguration, create_urllib3_context, where
from botocore.parsers import ResponseParserError
from botocore.utils import normalize_url_path
from yarl import URL

from agno_clouddb.errors import ConfigurationError
from agno_clouddb.stores.dynamodb.expressions import Request
from agno_clouddb.stores.dynamodb.signing import CONTENT_TYPE, Credentials, Signer

if TYPE_CHECKING:
    from types_aiobotocore_dynamodb import DynamoDBClient

__all__ = ["OPERATIONS", "Network", "Wire", "is_genuine"]

OPERATIONS: Mapping[str, str] = {
    "get_item": "GetItem",
    "batch_get_item": "BatchGetItem",
    "query": "Query",
    "scan": "Scan",
    "put_item": "PutItem",
    "update_item": "UpdateItem",
    "delete_item": "DeleteItem",
    "transact_write_items": "TransactWriteItems",
    "batch_write_item": "BatchWriteItem",
}
"""The calls that go this way, by the driver's name of the method."""

_TARGET = "DynamoDB_20120810."
_LARGEST_BODY = 1_000_000  # bytes
_LARGEST_ANSWER = 64 * 1024 * 1024  # bytes, after decompression; the service's largest has 16 MB
_CLOCK_CODES = frozenset(
    {
        "InvalidSignatureException",
        "RequestExpired",
        "RequestInTheFuture",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
_SHOWN = 200  # bytes of a foreign answer in an error
_LEAST_SKEW = 60.0  # seconds; the service takes signatures for five minutes, and Date and the network are no finer
_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/([^/]+)/([^/]+)/aws4_request")
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=lambda value: _base64(value)).encode


@dataclass(frozen=True, slots=True)
class Network:
    """How connections are made, as the driver's configuration has it.

    Args:
        connect_timeout: seconds.
        read_timeout: seconds in which nothing arrives.
        connections: the most at once.
        arguments: more of aiohttp's connector.
        verify: whether the service's certificate is checked, or the file of the authorities to check it by.
        client_cert: the file of the client's own certificate, or those of certificate and key.
        proxies: by scheme.
        proxies_config: the driver's settings for proxies.
    """

    connect_timeout: float
    read_timeout: float
    connections: int
    arguments: Mapping[str, Any]
    verify: bool | str
    client_cert: str | tuple[str, str] | None
    proxies: Mapping[str, str]
    proxies_config: Mapping[str, Any]

    def ssl_context(self) -> ssl.SSLContext | None:
        """What checks and encrypts connections; None: the service's certificate is not checked. Reads files."""
        if not self.verify:
            return None
        context: ssl.SSLContext = create_urllib3_context()
        # The driver's function leaves this to urllib3, which is not there.
        context.check_hostname = True
        context.load_verify_locations(where() if self.verify is True else self.verify)
        if authorities := self.proxies_config.get("proxy_ca_bundle"):
            context.load_verify_locations(authorities)
        for certificate in (self.client_cert, self.proxies_config.get("proxy_client_cert")):
            if certificate:
                context.load_cert_chain(*([certificate] if isinstance(certificate, str) else certificate))
        return context

    def connector(self, context: ssl.SSLContext | None) -> aiohttp.TCPConnector:
        """A pool of connections that are encrypted by a context of ``ssl_context``."""
        arguments: dict[str, Any] = {"ssl": context if context is not None else False, **self.arguments}
        if "ssl_context" in arguments:
            del arguments["ssl"]
        return aiohttp.TCPConnector(limit=self.connections, socket_factory=_socket, **arguments)


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """Where requests go.

    Args:
        url: of the service.
        signer: signs requests to it.
        proxy: stands between, if any.
        headers: what every request has beside what is signed.
        proxy_headers: what the proxy is to get.
    """

    url: URL
    signer: Signer
    proxy: URL | None
    headers: Mapping[str, str]
    proxy_headers: Mapping[str, str]


class _Prepared(Exception):
    """Ends a call of the driver with the request that it would have sent."""

    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request


class Wire:
    """Sends requests. Make one with ``open``.

    Args:
        driver: the driver's client.
        credentials: the driver's, which it refreshes.
        network: how connections are made.
        http: the connections.
        store: the store's name, for errors.
    """

    def __init__(
        self, driver: DynamoDBClient, credentials: Any, network: Network, http: aiohttp.ClientSession, store: str
    ) -> None:
        self._driver = driver
        self._credentials = credentials
        self._network = network
        self._http = http
        self._store = store
        self._endpoint: _Endpoint | None = None
        self._learning = asyncio.Lock()
        self._skew = 0.0  # seconds that the service's clock is ahead

    @classmethod
    def open(
        cls, driver: DynamoDBClient, credentials: Any, network: Network, context: ssl.SSLContext | None, store: str
    ) -> Wire:
        """Make ready; no request is sent.

        Args:
            driver: the driver's client.
            credentials: the driver's.
            network: how connections are made.
            context: the network's, which takes a while to make.
            store: the store's name, for errors.
        """
        connector = network.connector(context)
        http = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=network.connect_timeout, sock_read=network.read_timeout
            ),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Content-Type", "User-Agent"),
        )
        return cls(driver, credentials, network, http, store)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def send(self, operation: str, request: Request) -> dict[str, Any]:
        """Send one request once, and return the service's answer as the driver would.

        A request that the service refuses for its moment is sent again by the service's clock.

        Args:
            operation: the service's name of it, such as ``PutItem``.
            request: its parameters; binary values as bytes.

        Raises:
            ClientError: the service answered with an error; the driver's exception.
            ResponseParserError: what answered was not the service, or the answer was damaged on its way.
            aiohttp.ClientError: the connection could not be made, or broke.
            OSError: nothing arrived in time.
            BotoCoreError: the driver has no credentials, or cannot refresh them.
        """
        body = _encode(request).encode()
        try:
            return await self._once(operation, body)
        except boto.ClientError as error:
            if not self._adjust(error):
                raise
        return await self._once(operation, body)

    async def _once(self, operation: str, body: bytes) -> dict[str, Any]:
        endpoint = self._endpoint or await self._learn()
        credentials: Credentials = await self._credentials.get_frozen_credentials()
        target = f"{_TARGET}{operation}"
        headers = endpoint.signer.headers(target, body, credentials, time.time() + self._skew)
        # aiohttp warns of large bodies that are given as bytes, and an error filter would make that a failure.
        data = body if len(body) <= _LARGEST_BODY else io.BytesIO(body)
        try:
            async with self._http.post(
                endpoint.url,
                data=data,
                headers={**endpoint.headers, **headers},
                allow_redirects=False,
                proxy=endpoint.proxy,
                proxy_headers=endpoint.proxy_headers,
            ) as response:
                raw = await response.read()
        except (aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError) as error:
            raise boto.ProxyConnectionError(proxy_url=str(endpoint.proxy), error=error) from error
        return _answer(operation, response.status, response.headers, raw)

    def _adjust(self, error: boto.ClientError) -> bool:
        """Set the clock by an answer, where that may be why a signature was refused."""
        answered = error.response["ResponseMetadata"]["HTTPHeaders"].get("date")
        if error.response["Error"]["Code"] not in _CLOCK_CODES or answered is None:
            return False
        try:
            skew = email.utils.parsedate_to_datetime(answered).timestamp() - time.time()
        except ValueError:
            return False
        differs = abs(skew - self._skew) > _LEAST_SKEW
        if differs:
            self._skew = skew
        return differs

    async def _learn(self) -> _Endpoint:
        """Where requests go, which can depend on the credentials, from one that the driver makes and does not send."""
        async with self._learning:
            if self._endpoint is None:
                self._endpoint = _endpoint(await self._prepared(), self._network, self._store)
            return self._endpoint

    async def _prepared(self) -> Any:
        event = "before-send.dynamodb.DescribeEndpoints"
        self._driver.meta.events.register(event, _intercept)
        try:
            await self._driver.describe_endpoints()
        except _Prepared as prepared:
            return prepared.request
        finally:
            self._driver.meta.events.unregister(event, _intercept)
        raise ConfigurationError(
            "the driver's client is not what makes its requests",
            store=self._store,
            remedy="Choose the driver aioboto3",
        )


def _intercept(request: Any, **_: Any) -> None:
    raise _Prepared(request)


def _endpoint(request: Any, network: Network, store: str) -> _Endpoint:
    sent = {name.lower(): _text(value) for name, value in request.headers.items()}
    scope = _SCOPE.search(sent.get("authorization", ""))
    if scope is None:
        raise ConfigurationError(
            "requests are configured to be signed in another way than Signature Version 4, or not at all",
            store=store,
            remedy="Choose the driver aioboto3",
        )
    url = URL(request.url, encoded=True)
    proxies = ProxyConfiguration(proxies=network.proxies, proxies_settings=network.proxies_config)
    proxy = proxies.proxy_url_for(request.url)
    path = quote(normalize_url_path(url.raw_path), safe="/~")
    headers = {"User-Agent": sent.get("user-agent", ""), "Accept-Encoding": "identity"}
    login = proxies.proxy_headers_for(proxy) if proxy else {}
    # A proxy for HTTP reads the request itself, one for HTTPS only what asks for a tunnel.
    plain = url.scheme == "http"
    return _Endpoint(
        url,
        Signer((url.host_port_subcomponent or "").lower(), path, *scope.groups()),
        URL(proxy).with_user(None) if proxy else None,
        {**headers, **login} if plain else headers,
        {} if plain else login,
    )


def is_genuine(headers: Mapping[str, str]) -> bool:
    """Whether the headers of an answer are those of DynamoDB. Whatever stands between may answer with status 200."""
    return headers.get("content-type", "").startswith(CONTENT_TYPE) or "x-amzn-requestid" in headers


def _answer(operation: str, status: int, headers: Mapping[str, str], raw: bytes) -> dict[str, Any]:
    """What the service has answered. Raises ClientError and ResponseParserError as ``send`` does."""
    body = _checked(raw, headers)
    try:
        answer = json.loads(body.decode()) if body else {}
    except ValueError:
        answer = None
    if status == 200 and isinstance(answer, dict) and is_genuine(headers):
        for item in _items(answer):
            _decode(item)
        return answer
    if status == 200:
        raise ResponseParserError(f"the answer is not DynamoDB's: {body[:_SHOWN]!r}")
    raise _refusal(operation, status, headers, answer if body and isinstance(answer, dict) else None, body)


def _checked(raw: bytes, headers: Mapping[str, str]) -> bytes:
    """The body of an answer, whole and decompressed. Raises ResponseParserError if it was damaged."""
    body = _decompressed(raw) if headers.get("Content-Encoding", "").lower() in ("gzip", "deflate") else raw
    expected = headers.get("x-amz-crc32")
    # The checksum is that of what the service has sent, which may have been compressed on the way.
    sent = (raw,) if body is raw else (raw, body)
    if expected is not None and all(expected != str(zlib.crc32(each)) for each in sent):
        raise ResponseParserError(f"the answer was damaged: its checksum is {zlib.crc32(raw)} and not {expected}")
    return body


def _decompressed(raw: bytes) -> bytes:
    decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        body = decompressor.decompress(raw, _LARGEST_ANSWER)
    except zlib.error as error:
        raise ResponseParserError(f"the answer was damaged: {error}") from error
    if not decompressor.eof:
        raise ResponseParserError("the answer was damaged: its compression has no end")
    return body


def _refusal(
    operation: str, status: int, headers: Mapping[str, str], answer: dict[str, Any] | None, body: bytes
) -> boto.ClientError:
    """The driver's exception for an answer that is an error."""
    told = answer if answer is not None else {}
    code = str(told.get("__type") or headers.get("x-amzn-ErrorType") or status)
    message = told.get("message", told.get("Message"))
    if answer is None:
        message = f"{headers.get('Location') or ''} {body[:_SHOWN]!r}".strip()
    for reason in (told, *(told.get("CancellationReasons") or ())):
        if reason.get("Item"):
            _decode(reason["Item"])
    response: Any = {
        **{name: told[name] for name in ("Item", "CancellationReasons") if told.get(name)},
        "Error": {"Code": code.rpartition("#")[2].partition(":")[0], "Message": str(message or "")},
        "ResponseMetadata": {
            "HTTPStatusCode": status,
            "RequestId": headers.get("x-amzn-RequestId", ""),
            "HTTPHeaders": {name.lower(): value for name, value in headers.items()},
            "RetryAttempts": 0,
        },
    }
    return boto.ClientError(response, operation)


def _items(answer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The items in an answer."""
    yield from (answer[name] for name in ("Item", "Attributes") if name in answer)
    yield from answer.get("Items", ())
    for items in answer.get("Responses", {}).values():
        yield from items


def _decode(item: dict[str, Any]) -> None:
    # Attributes are scalars: this library keeps neither maps nor lists.
    for value in item.values():
        if "B" in value:
            value["B"] = base64.b64decode(value["B"])


def _base64(value: Any) -> str:
    return base64.b64encode(value).decode()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _socket(address: Any) -> socket.socket:
    """A socket that notices when the other side is gone without a word."""
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return made
