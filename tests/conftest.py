"""The engines that tests run on, and how many tests ran on each.

A test that takes ``backend`` runs once on every engine, with tables or collections of its own; ``moto_url``,
``dynamodb_local_url`` and ``firestore_url`` are for what only one of them can show, under a ``prefix``. Each engine is
started when the first test needs it, once a test run, by each worker of pytest-xdist for itself. One that is missing
skips its tests with the reason; with CI=true they fail.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from agno_clouddb.testing.engines import EngineUnavailable, dynamodb_local, firestore_emulator, moto
from tests.tables import drop_tables

# Engines are fetched once for a checkout, not for a user.
os.environ.setdefault("AGNO_CLOUDDB_CACHE", str(Path(__file__).parent.parent / ".cache"))

# No example of a property fails for its time alone, on a machine that has other things to do. The rest stays as it is:
# with CI=true, Hypothesis has chosen its profile `ci`, which always draws the same and says how to draw it again.
settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")

_URL_FIXTURES = {"moto": "moto_url", "dynamodb_local": "dynamodb_local_url", "firestore": "firestore_url"}
_ENGINES = ("memory", "sqlite", *_URL_FIXTURES)
_PROPERTY = "engine"


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The URL of moto, which all tests of the run share."""
    yield from _url(moto())


@pytest.fixture(scope="session")
def dynamodb_local_url() -> Iterator[str]:
    """The URL of DynamoDB Local, which all tests of the run share."""
    yield from _url(dynamodb_local())


@pytest.fixture(scope="session")
def firestore_url() -> Iterator[str]:
    """The URL of the Firestore emulator, which all tests of the run share."""
    yield from _url(firestore_emulator())


def _url(engine: AbstractContextManager[str]) -> Iterator[str]:
    with ExitStack() as stack:
        try:
            url = stack.enter_context(engine)
        except EngineUnavailable as error:
            missing = str(error)
        else:
            yield url
            return
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"CI needs every engine: {missing}", pytrace=False)
    pytest.skip(missing)


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """What the names of a test's tables and collections begin with; the tables are dropped when it ends."""
    own = f"t{secrets.token_hex(6)}_"
    yield own
    for fixture in ("moto_url", "dynamodb_local_url"):
        if fixture in request.node._request._fixture_defs:
            drop_tables(request.getfixturevalue(fixture), own)


@pytest.fixture(params=[pytest.param(each, marks=getattr(pytest.mark, each)) for each in _ENGINES])
def backend(request: pytest.FixtureRequest, prefix: str, tmp_path: Path) -> str:
    """A URL for ``connect`` on each engine in turn, under a prefix that no other test has."""
    name: str = request.param
    if name == "memory":
        return "memory://"
    if name == "sqlite":
        return f"sqlite:///{tmp_path / 'store.sqlite'}?prefix={prefix}"
    url: str = request.getfixturevalue(_URL_FIXTURES[name])
    return f"{url}&prefix={prefix}"


def _engines_of(item: pytest.Item) -> set[str]:
    """The engines that a test has used: by fixture, by parameter or by marker."""
    marked = {each for each in _ENGINES if item.get_closest_marker(each)}
    if not isinstance(item, pytest.Function):
        return marked
    # Unlike `fixturenames`, this has what a test asked for by `getfixturevalue` too.
    requested = item._request._fixture_defs
    by_fixture = {engine for engine, fixture in _URL_FIXTURES.items() if fixture in requested}
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    by_parameter = {value for value in values if isinstance(value, str) and value in _ENGINES}
    return marked | by_fixture | by_parameter


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    if call.when == "call":
        item.user_properties.extend((_PROPERTY, engine) for engine in sorted(_engines_of(item)))
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    ran: Counter[str] = Counter()
    for outcome in ("passed", "failed", "xfailed", "xpassed"):
        for report in terminalreporter.stats.get(outcome, ()):
            if report.when == "call":
                ran.update(str(value) for name, value in report.user_properties if name == _PROPERTY)
    terminalreporter.section("tests on each engine")
    terminalreporter.write_line(", ".join(f"{engine} {ran[engine]}" for engine in _ENGINES))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="run a simulation with this seed alone")
    parser.addoption("--sequences", type=int, default=None, help="so many sequences of calls of agno's database")
    parser.addoption("--sessions", type=int, default=None, help="import so many sessions from agno's own tables")
    parser.addoption("--write-docs", action="store_true", help="write the tables of the documents anew")
    parser.addoption("--conversations", default=None, help="recorded conversations to use, a file of JSON lines")
