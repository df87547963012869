"""The slim path against small services: what is sent, and how it takes whatever answers."""

from __future__ import annotations

import datetime
import email.utils
import gzip
import ipaddress
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aioboto3
import aiohttp
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioRefreshableCredentials
from botocore import UNSIGNED
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agno_clouddb.errors import CloudDBError, ConfigurationError, StoreUnavailable
from agno_clouddb.stores.base import Item, Key, Put, Stored
from agno_clouddb.stores.dynamodb import DynamoDBStore
from agno_clouddb.stores.dynamodb.driver import open_driver
from agno_clouddb.stores.dynamodb.errors import DRIVER_ERRORS, code_of, fault_of
from agno_clouddb.stores.dynamodb.store import DRIVERS
from agno_clouddb.stores.dynamodb.wire import OPERATIONS, Wire
from tests.unit.services import CUT, SILENCE, Received, Reply, answer, serving

REQUEST = {"TableName": "t", "Key": {"id": {"S": "ü"}}, "ConsistentRead": True}
FOUND = {"Item": {"id": {"S": "ü"}, "data": {"B": "AAEC"}, "n": {"N": "1"}}}
ITEM = Item(Key("sessions", "s1"), "0001", {"created_at": "2025"}, b"\x00\x01")
STORED = {"session_id": {"S": "s1"}, "version": {"S": "0001"}, "created_at": {"S": "2025\x1fs1"}, "data": {"B": "AAE="}}
DEADLINE = 20.0


def session(**more: Any) -> aioboto3.Session:
    return aioboto3.Session(**{"aws_access_key_id": "AKID", "aws_secret_access_key": "secret", **more})


@asynccontextmanager
async def opened(
    url: str | None, session_: aioboto3.Session | None = None, deadline: float = DEADLINE
) -> AsyncIterator[tuple[Any, Wire]]:
    """The driver's client and the slim path to one address."""
    async with AsyncExitStack() as stack:
        driver, wire = await open_driver(
            "store",
            stack,
            region="eu-west-1",
            endpoint_url=url,
            local=False,
            session=session_ or session(),
            deadline=deadline,
            slim=True,
        )
        assert wire is not None
        yield driver, wire


async def got(*script: Reply, deadline: float = DEADLINE) -> dict[str, Any]:
    """What GetItem gives when the service answers so."""
    async with serving(*script) as service, opened(service.url, deadline=deadline) as (_, wire):
        return await wire.send("GetItem", REQUEST)


def failure(status: int, code: str, **more: Any) -> bytes:
    return answer({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "said so", **more}, status)


class TestRequests:
    async def test_what_is_sent_is_what_the_driver_sends(self) -> None:
        async with serving() as service, opened(service.url, session(aws_session_token="token")) as (driver, wire):
            await driver.get_item(**REQUEST)
            await wire.send("GetItem", REQUEST)
        by_driver, slim = service.received
        assert (slim.line, slim.json) == (by_driver.line, by_driver.json) == ("POST / HTTP/1.1", REQUEST)
        same = ("host", "content-type", "x-amz-target", "x-amz-security-token", "user-agent", "accept-encoding")
        assert {name: slim.headers[name] for name in same} == {name: by_driver.headers[name] for name in same}
        assert slim.headers.keys() <= by_driver.headers.keys()
        scopes = [each.headers["authorization"].split("/")[2:4] for each in service.received]
        assert scopes == [["eu-west-1", "dynamodb"]] * 2

    async def test_binary_values_go_and_come_as_bytes(self) -> None:
        item = {"id": {"S": "a"}, "data": {"B": b"\x00\x01\x02"}}
        wired = {"id": {"S": "a"}, "data": {"B": "AAEC"}}
        answers = {
            "GetItem": {"Item": wired},
            "Query": {"Items": [wired, wired]},
            "BatchGetItem": {"Responses": {"t": [wired], "u": [wired]}},
            "UpdateItem": {"Attributes": wired},
        }
        async with serving(*map(answer, answers.values())) as service, opened(service.url) as (_, wire):
            assert await wire.send("GetItem", {"Item": item}) == {"Item": item}
            assert await wire.send("Query", {}) == {"Items": [item, item]}
            assert await wire.send("BatchGetItem", {}) == {"Responses": {"t": [item], "u": [item]}}
            assert await wire.send("UpdateItem", {}) == {"Attributes": item}
        assert service.received[0].json == {"Item": wired}

    async def test_every_operation_is_named_as_the_driver_names_it(self) -> None:
        async with opened("http://127.0.0.1:1") as (driver, _):
            known = driver.meta.method_to_api_mapping
            assert {method: known[method] for method in OPERATIONS} == OPERATIONS

    async def test_a_large_body_is_sent_whole(self) -> None:
        async with serving() as service, opened(service.url) as (_, wire):
            await wire.send("PutItem", {"Item": {"data": {"S": "x" * 2_000_000}}})
        assert len(service.received[0].json["Item"]["data"]["S"]) == 2_000_000

    async def test_connections_are_used_again_and_kept_alive(self) -> None:
        async with serving() as service, opened(service.url) as (_, wire):
            for _ in range(3):
                await wire.send("GetItem", REQUEST)
            (pooled,) = wire._http.connector._conns.values()  # type: ignore[union-attr]
            sent = pooled[0][0].transport.get_extra_info("socket")  # type: ignore[union-attr]
            assert sent.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert {each.connection for each in service.received} == {0}

    async def test_an_endpoint_of_the_account_is_used_where_the_driver_uses_it(self) -> None:
        with_account = session(aws_account_id="123456789012")
        for used, host in ((session(), "dynamodb"), (with_account, "123456789012.ddb")):
            async with opened(None, used) as (_, wire):
                assert str((await wire._learn()).url) == f"https://{host}.eu-west-1.amazonaws.com/"

    async def test_a_session_that_does_not_sign_is_a_mistake_that_names_the_other_driver(self) -> None:
        unsigned = session()
        unsigned._session.set_default_client_config(AioConfig(signature_version=UNSIGNED))
        async with serving() as service, opened(service.url, unsigned) as (_, wire):
            with pytest.raises(ConfigurationError, match="aioboto3"):
                await wire.send("GetItem", REQUEST)
        assert service.received == []


def with_credentials(credentials: Any) -> aioboto3.Session:
    made = aioboto3.Session()
    inner: Any = made._session
    inner._credentials = credentials
    return made


class TestCredentials:
    async def test_they_are_read_for_each_request_and_refreshed_by_the_driver(self) -> None:
        refreshed: list[int] = []

        async def refresh() -> dict[str, str]:
            refreshed.append(1)
            expiry = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)
            return {
                "access_key": f"KEY{len(refreshed)}",
                "secret_key": "secret",
                "token": f"token{len(refreshed)}",
                "expiry_time": expiry.isoformat(),
            }

        used = with_credentials(
            AioRefreshableCredentials.create_from_metadata(
                metadata=await refresh(), refresh_using=refresh, method="test"
            )
        )
        async with serving() as service, opened(service.url, used) as (_, wire):
            for _ in range(3):
                await wire.send("GetItem", REQUEST)
        seen = [(each.headers["x-amz-security-token"], access_key(each)) for each in service.received]
        assert len(set(seen)) == 3
        assert seen[-1] == (f"token{len(refreshed)}", f"KEY{len(refreshed)}")

    async def test_credentials_that_cannot_be_had_are_a_mistake_of_the_configuration(self) -> None:
        async def refresh() -> dict[str, str]:
            raise boto.CredentialRetrievalError(provider="test", error_msg="no role")

        past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
        used = with_credentials(AioRefreshableCredentials("a", "b", "c", past, refresh, "test"))
        async with serving() as service, opened(service.url, used) as (_, wire):
            with pytest.raises(boto.CredentialRetrievalError) as raised:
                await wire.send("GetItem", REQUEST)
        assert fault_of(raised.value).kind is ConfigurationError


def access_key(request: Received) -> str:
    return request.headers["authorization"].partition("Credential=")[2].partition("/")[0]


class TestClock:
    @pytest.mark.parametrize("code", ["InvalidSignatureException", "RequestTimeTooSkewed", "SignatureDoesNotMatch"])
    @pytest.mark.parametrize("ahead", [3600, -3600])
    async def test_a_request_refused_for_its_moment_is_sent_again_by_the_services_clock(
        self, code: str, ahead: int
    ) -> None:
        there = email.utils.formatdate(time.time() + ahead, usegmt=True)
        refused = answer({"__type": f"x#{code}"}, 400, headers={"Date": there})
        async with serving(refused, answer(FOUND)) as service, opened(service.url) as (_, wire):
            await wire.send("GetItem", REQUEST)
            await wire.send("GetItem", REQUEST)
        for each, expected in zip(service.received, (0, ahead, ahead), strict=True):
            assert abs(skew_of(each) - expected) < 30

    @pytest.mark.parametrize("date", ["now", "yesterday", ""])
    async def test_a_signature_that_is_wrong_for_another_reason_is_sent_once(self, date: str) -> None:
        date = email.utils.formatdate(usegmt=True) if date == "now" else date
        refused = answer({"__type": "x#InvalidSignatureException"}, 400, headers={"Date": date})
        async with serving(refused) as service, opened(service.url) as (_, wire):
            with pytest.raises(boto.ClientError):
                await wire.send("GetItem", REQUEST)
        assert len(service.received) == 1


def skew_of(request: Received) -> float:
    moment = datetime.datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ")
    return moment.replace(tzinfo=datetime.UTC).timestamp() - time.time()


class TestAnswers:
    async def test_a_checksum_that_does_not_hold_is_a_damaged_answer(self) -> None:
        with pytest.raises(ResponseParserError, match="damaged"):
            await got(answer(FOUND, headers={"x-amz-crc32": "1"}))
        assert (await got(answer(FOUND, headers={"x-amz-crc32": ""})))["Item"]["id"] == {"S": "ü"}

    @pytest.mark.parametrize("summed", ["sent", "decompressed", "neither"])
    async def test_a_compressed_answer_is_read_whichever_form_its_checksum_is_of(self, summed: str) -> None:
        plain = answer(FOUND).partition(b"\r\n\r\n")[2]
        packed = gzip.compress(plain)
        sums = {"sent": zlib.crc32(packed), "decompressed": zlib.crc32(plain), "neither": 1}
        reply = answer(packed, headers={"Content-Encoding": "gzip", "x-amz-crc32": str(sums[summed])})
        if summed == "neither":
            with pytest.raises(ResponseParserError, match="damaged"):
                await got(reply)
        else:
            assert (await got(reply))["Item"]["data"] == {"B": b"\x00\x01\x02"}

    @pytest.mark.parametrize("packed", [gzip.compress(b"{}" * 500, mtime=0)[:-12], b"not gzip"])
    async def test_a_broken_compression_is_a_damaged_answer(self, packed: bytes) -> None:
        with pytest.raises(ResponseParserError, match="damaged"):
            await got(answer(packed, headers={"Content-Encoding": "gzip"}))

    @pytest.mark.parametrize(
        "reply",
        [
            answer(b"<html>hello</html>", headers={"Content-Type": "text/html"}),
            answer({"status": "ok"}, headers={"Content-Type": "application/json", "x-amzn-RequestId": ""}),
            answer(b"", headers={"Content-Type": "text/plain", "x-amzn-RequestId": ""}),
            answer([]),
            answer(b"\xff\xfe"),
        ],
    )
    async def test_what_is_not_the_services_own_answer_is_none(self, reply: bytes) -> None:
        with pytest.raises(ResponseParserError, match="not DynamoDB's") as raised:
            await got(reply)
        fault = fault_of(raised.value)
        assert (fault.kind, fault.retry, fault.applied) == (StoreUnavailable, True, True)

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_not_followed(self, status: int) -> None:
        async with serving() as other:
            moved = answer(b"", status, headers={"Location": other.url, "Content-Type": "", "x-amzn-RequestId": ""})
            with pytest.raises(boto.ClientError, match=other.url) as raised:
                await got(moved)
            assert other.received == []
        assert fault_of(raised.value).kind is CloudDBError

    async def test_what_a_failed_condition_found_is_decoded(self) -> None:
        with pytest.raises(boto.ClientError) as raised:
            await got(failure(400, "ConditionalCheckFailedException", **FOUND))
        response: Any = raised.value.response
        assert response["Item"]["data"] == {"B": b"\x00\x01\x02"}
        reasons = [{"Code": "None"}, {"Code": "ConditionalCheckFailed", **FOUND}]
        with pytest.raises(boto.ClientError) as raised:
            await got(failure(400, "TransactionCanceledException", CancellationReasons=reasons))
        response = raised.value.response
        assert response["CancellationReasons"][1]["Item"]["data"] == {"B": b"\x00\x01\x02"}

    @pytest.mark.parametrize(
        ("reply", "fault"),
        [
            (CUT, (StoreUnavailable, True, True)),
            (answer(FOUND, missing=5), (StoreUnavailable, True, True)),
            (b"HTTP/1.1 200 OK\r\nContent-Len", (StoreUnavailable, True, True)),
            (b"SSH-2.0-OpenSSH\r\n\r\n", (StoreUnavailable, True, True)),
            (SILENCE, (StoreUnavailable, True, True)),
        ],
        ids=["cut", "cut in the body", "cut in the head", "another protocol", "silent"],
    )
    async def test_an_answer_that_stays_out_leaves_open_what_became_of_the_request(
        self, reply: Reply, fault: tuple[Any, ...]
    ) -> None:
        script = (reply + b"\r\nConnection: close" if reply == b"HTTP/1.1 200 OK\r\nContent-Len" else reply,)
        with pytest.raises((aiohttp.ClientError, OSError)) as raised:
            await got(*script, deadline=4.0 if reply is SILENCE else DEADLINE)
        found = fault_of(raised.value)
        assert (found.kind, found.retry, found.applied) == fault

    async def test_a_connection_that_cannot_be_made_has_surely_sent_nothing(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            async with opened(f"http://127.0.0.1:{unused.getsockname()[1]}") as (_, wire):
                with pytest.raises(aiohttp.ClientConnectorError) as raised:
                    await wire.send("GetItem", REQUEST)
        found = fault_of(raised.value)
        assert (found.kind, found.retry, found.applied) == (StoreUnavailable, True, False)


class TestBothDrivers:
    """What a user of the store sees does not depend on what has sent the request."""

    @pytest.mark.parametrize(
        "reply",
        [
            failure(400, "ThrottlingException"),
            failure(400, "ValidationException"),
            failure(400, "ResourceNotFoundException"),
            failure(400, "AccessDeniedException"),
            failure(400, "ExpiredTokenException"),
            failure(500, "InternalServerError"),
            answer(b"<html>busy</html>", 503, headers={"Content-Type": "text/html", "x-amzn-RequestId": ""}),
            answer(b"<html>hello</html>", headers={"Content-Type": "text/html", "x-amzn-RequestId": ""}),
            answer(missing=1),
            CUT,
            SILENCE,
        ],
        ids=lambda reply: repr(reply)[-40:],
    )
    async def test_failures_come_to_the_same(self, reply: Reply) -> None:
        seen = []
        for driver in DRIVERS:
            async with serving(reply) as service:
                store = DynamoDBStore(endpoint_url=service.url, driver=driver, deadline=4.0 if reply is SILENCE else 30)
                async with store:
                    assert store._opened is not None
                    with pytest.raises(DRIVER_ERRORS) as raised:
                        await store._opened.client.methods["put_item"](TableName="t", Item={})
            seen.append((fault_of(raised.value), code_of(raised.value)))
        assert seen[0] == seen[1]

    async def test_throttling_and_damage_are_tried_again(self) -> None:
        damaged = answer({"Item": STORED}, headers={"x-amz-crc32": "1"})
        async with (
            serving(failure(400, "ThrottlingException"), damaged, answer({"Item": STORED})) as service,
            DynamoDBStore(endpoint_url=service.url, deadline=DEADLINE) as store,
        ):
            assert (await store.get([ITEM.key])).items == (ITEM,)
        assert store.usage.requests["GetItem"] == 3

    async def test_a_connection_that_was_closed_while_it_was_idle_costs_a_retry_at_most(self) -> None:
        async with serving() as service, DynamoDBStore(endpoint_url=service.url, deadline=DEADLINE) as store:
            assert await store.write([Put(ITEM)]) == (Stored(ITEM.version),)
            for writer in service.writers:
                writer.close()
            assert await store.write([Put(ITEM)]) == (Stored(ITEM.version),)
        assert store.usage.requests["PutItem"] <= 3

    async def test_units_are_asked_for_and_counted(self) -> None:
        reply = answer({"Item": STORED, "ConsumedCapacity": {"TableName": "t", "CapacityUnits": 1.5}})
        async with (
            serving(reply) as service,
            DynamoDBStore(endpoint_url=service.url, report_capacity=True, deadline=DEADLINE) as store,
        ):
            await store.get([ITEM.key])
        assert store.usage.read_units == 1.5
        assert service.received[0].json["ReturnConsumedCapacity"] == "TOTAL"

    def test_another_driver_is_refused_with_those_that_there_are(self) -> None:
        with pytest.raises(ConfigurationError, match=r"slim.*aioboto3"):
            DynamoDBStore("eu-west-1", driver="boto3")  # type: ignore[arg-type]


class TestProxies:
    @pytest.fixture(autouse=True)
    def without_proxies(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)

    async def test_those_of_the_environment_are_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with serving(answer(FOUND)) as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            async with opened("http://dynamodb.example:8000") as (_, wire):
                await wire.send("GetItem", REQUEST)
        (received,) = proxy.received
        assert received.line == "POST http://dynamodb.example:8000/ HTTP/1.1"
        assert received.headers["host"] == "dynamodb.example:8000"

    async def test_an_address_that_is_exempt_is_reached_directly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with serving(answer(FOUND)) as service, serving() as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            async with opened(service.url) as (_, wire):
                await wire.send("GetItem", REQUEST)
        assert (len(service.received), proxy.received) == (1, [])

    async def test_those_of_the_configuration_are_used_with_their_credentials(self) -> None:
        used = session()
        async with serving(answer(FOUND)) as proxy:
            address = proxy.url.replace("//", "//ann:a%2Fb@")
            used._session.set_default_client_config(AioConfig(proxies={"http": address}))
            async with opened("http://dynamodb.example", used) as (_, wire):
                await wire.send("GetItem", REQUEST)
        assert proxy.received[0].headers["proxy-authorization"] == "Basic YW5uOmEvYg=="

    async def test_a_proxy_that_refuses_has_sent_nothing_on_and_its_password_is_not_told(self) -> None:
        used = session()
        async with serving(answer(b"", 407, headers={"Connection": "close"})) as proxy:
            address = proxy.url.replace("//", "//ann:hidden@")
            used._session.set_default_client_config(AioConfig(proxies={"https": address}))
            async with opened("https://dynamodb.example", used) as (_, wire):
                with pytest.raises(boto.ProxyConnectionError) as raised:
                    await wire.send("GetItem", REQUEST)
        assert proxy.received[0].line == "CONNECT dynamodb.example:443 HTTP/1.1"
        assert proxy.received[0].headers["proxy-authorization"] == "Basic YW5uOmhpZGRlbg=="
        assert "hidden" not in str(raised.value)
        found = fault_of(raised.value)
        assert (found.kind, found.retry, found.applied) == (StoreUnavailable, True, False)


@dataclass(frozen=True)
class Certificates:
    """Files of one authority, which has certified 127.0.0.1 and a client."""

    authority: Path
    server: Path
    client: Path

    def context(self, *, ask: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server)
        if ask:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.authority)
        return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    key = ec.generate_private_key(ec.SECP256R1())
    authority = certificate("authority", key, key, ca=True)
    (folder / "authority.pem").write_bytes(authority)
    for name in ("server", "client"):
        own = ec.generate_private_key(ec.SECP256R1())
        private = own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{name}.pem").write_bytes(private + certificate(name, own, key))
    return Certificates(*(folder / f"{name}.pem" for name in ("authority", "server", "client")))


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, authority: ec.EllipticCurvePrivateKey, *, ca: bool = False
) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    )
    return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class TestTLS:
    @pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
    async def test_the_authorities_of_the_environment_are_believed(
        self, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
        monkeypatch.setenv(variable, str(certificates.authority))
        async with serving(answer(FOUND), context=certificates.context()) as service, opened(service.url) as (_, wire):
            assert "Item" in await wire.send("GetItem", REQUEST)

    async def test_others_are_not(self, certificates: Certificates) -> None:
        async with serving(answer(FOUND), context=certificates.context()) as service, opened(service.url) as (_, wire):
            with pytest.raises(aiohttp.ClientConnectorCertificateError) as raised:
                await wire.send("GetItem", REQUEST)
        assert service.received == []
        assert not fault_of(raised.value).applied

    async def test_a_certificate_for_another_name_is_not_believed(
        self, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificates.authority))
        async with (
            serving(answer(FOUND), context=certificates.context()) as service,
            opened(service.url.replace("127.0.0.1", "localhost")) as (_, wire),
        ):
            with pytest.raises(aiohttp.ClientConnectorError):
                await wire.send("GetItem", REQUEST)
        assert service.received == []

    @pytest.mark.parametrize("given", [True, False])
    async def test_the_clients_own_certificate_is_shown(
        self, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, given: bool
    ) -> None:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificates.authority))
        used = session()
        if given:
            used._session.set_default_client_config(AioConfig(client_cert=str(certificates.client)))
        async with (
            serving(answer(FOUND), context=certificates.context(ask=True)) as service,
            opened(service.url, used) as (_, wire),
        ):
            if given:
                assert "Item" in await wire.send("GetItem", REQUEST)
            else:
                with pytest.raises(aiohttp.ClientError):
                    await wire.send("GetItem", REQUEST)

    async def test_a_bundle_that_is_not_there_is_a_mistake_of_the_configuration(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "missing.pem"))
        with pytest.raises(ConfigurationError):
            async with opened("https://127.0.0.1:1"):
                pass

    async def test_the_driver_makes_its_connections_by_the_same_rules(
        self, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificates.authority))
        async with serving(answer(FOUND), context=certificates.context()) as service:
            async with opened(service.url) as (driver, _):
                assert "Item" in await driver.get_item(**REQUEST)
            monkeypatch.delenv("AWS_CA_BUNDLE")
            monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
            async with opened(service.url) as (driver, _):
                with pytest.raises(boto.SSLError):
                    await driver.get_item(**REQUEST)
        assert len(service.received) == 1
