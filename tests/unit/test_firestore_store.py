from __future__ import annotations

import subprocess
import sys

import pytest

from agno_clouddb.errors import ConfigurationError, LifecycleError
from agno_clouddb.stores.base import Key, Query
from agno_clouddb.stores.firestore import FirestoreStore


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "FIRESTORE_EMULATOR_HOST",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_CLOUD_PROJECT",
        "GCLOUD_PROJECT",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/nonexistent")
    monkeypatch.setenv("NO_GCE_CHECK", "true")


def test_importing_and_making_a_store_imports_no_driver() -> None:
    code = """
import sys
from agno_clouddb.stores.firestore import FirestoreStore, firestore_indexes
FirestoreStore("p")
firestore_indexes()
print([name for name in sys.modules if name.split(".")[0] in ("google", "grpc", "proto")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("my-project",), "firestore://my-project"),
        (("my-project", "(default)"), "firestore://my-project"),
        (("my-project", "agents"), "firestore://my-project/agents"),
    ],
)
def test_the_name_has_project_and_database(arguments: tuple[str, ...], name: str) -> None:
    assert FirestoreStore(*arguments).name == name


def test_the_project_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "from-environment")
    assert FirestoreStore().name == "firestore://from-environment"


def test_an_emulator_takes_smaller_payloads_than_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    service = FirestoreStore("p").limits
    emulator = FirestoreStore("p", emulator_host="127.0.0.1:1").limits
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")
    assert FirestoreStore("p").limits == emulator
    assert 3_800_000 < emulator.payload_bytes < 4 * 1024 * 1024
    assert 9_500_000 < service.payload_bytes < 10 * 1024 * 1024


def test_a_prefix_with_a_slash_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        FirestoreStore("p", prefix="a/b")


@pytest.mark.parametrize("project", [None, "my-project"])
async def test_opening_without_credentials_says_how_to_get_some(project: str | None) -> None:
    with pytest.raises(ConfigurationError, match="GOOGLE_APPLICATION_CREDENTIALS") as caught:
        await FirestoreStore(project).open()
    assert caught.value.__cause__ is not None


async def test_a_store_that_is_not_open_says_so() -> None:
    store = FirestoreStore("p", emulator_host="127.0.0.1:1")
    with pytest.raises(LifecycleError, match="not open"):
        await store.get([Key("sessions", "a")])
    with pytest.raises(LifecycleError, match="not open"):
        await store.query(Query("sessions", "created_at"), limit=1)
    await store.aclose()
