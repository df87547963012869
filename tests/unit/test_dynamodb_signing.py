"""Signatures are those of the driver."""

from __future__ import annotations

import datetime
from typing import Any, NamedTuple

import pytest
from botocore import auth
from botocore.awsrequest import AWSRequest

from agno_clouddb.stores.dynamodb.signing import CONTENT_TYPE, Signer

MOMENT = datetime.datetime(2026, 2, 28, 23, 59, 59, tzinfo=datetime.UTC)
TARGET = "DynamoDB_20120810.PutItem"


class Keys(NamedTuple):
    access_key: str
    secret_key: str
    token: str | None


def signed_by_the_driver(
    url: str, body: bytes, credentials: Keys, moment: datetime.datetime, region: str
) -> dict[str, str]:
    request = AWSRequest("POST", url, {"Content-Type": CONTENT_TYPE, "X-Amz-Target": TARGET}, body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auth, "get_current_datetime", lambda: moment.replace(tzinfo=None))
        driver: Any = auth.SigV4Auth
        driver(credentials, "dynamodb", region).add_auth(request)
    return dict(request.headers)


@pytest.mark.parametrize("token", [None, "a/token+with=signs"])
@pytest.mark.parametrize("body", [b"{}", "ü☃".encode() * 1000])
@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://dynamodb.eu-west-1.amazonaws.com", "dynamodb.eu-west-1.amazonaws.com"),
        ("https://dynamodb.eu-west-1.amazonaws.com:443/", "dynamodb.eu-west-1.amazonaws.com"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
    ],
)
def test_a_signature_is_that_of_the_driver_for_the_same_request_and_moment(
    url: str, host: str, body: bytes, token: str | None
) -> None:
    credentials = Keys("AKID", "a/secret", token)
    expected = signed_by_the_driver(url, body, credentials, MOMENT, "eu-west-1")
    headers = Signer(host, "/", "eu-west-1", "dynamodb").headers(TARGET, body, credentials, MOMENT.timestamp())
    assert headers == {**expected, "Host": host}


def test_the_key_of_another_day_or_secret_is_another() -> None:
    signer = Signer("127.0.0.1:8000", "/", "eu-west-1", "dynamodb")
    for moment in (MOMENT, MOMENT + datetime.timedelta(seconds=1), MOMENT):
        for secret in ("one", "two", "one"):
            credentials = Keys("AKID", secret, None)
            expected = signed_by_the_driver("http://127.0.0.1:8000", b"{}", credentials, moment, "eu-west-1")
            headers = signer.headers(TARGET, b"{}", credentials, moment.timestamp())
            assert headers["Authorization"] == expected["Authorization"]
