"""Everything that a change must pass: ``nox`` runs it all, ``nox -s NAME`` a part, ``nox -s NAME -- OPTIONS`` goes on
to the tool. All sessions share one environment, brought up to date once a run.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nox

_TESTS = ["unit", "conformance", "simulation", "integration", "outages", "acceptance"]
# The simulation runs the same lines over and over, and takes more than twice as long when they are counted.
_COVERED = [name for name in _TESTS if name != "simulation"]
# Shared out among workers, each of which starts engines of its own: what the clock does not matter for.
_WORKERS = {
    "conformance": ("-n", "2", "--dist", "load"),
    "simulation": ("-n", "auto", "--dist", "worksteal"),
    "integration": ("-n", "2", "--dist", "worksteal"),
}

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "docs", *_TESTS, "coverage"]
nox.options.default_venv_backend = "none"

_ENVIRONMENT = Path(".nox/shared")
_REPORTS = Path(".cache/reports")
_COVERAGE = Path(".cache/coverage")
_BYTE_CODE = {"PYTHONDONTWRITEBYTECODE": ""}  # else each of the programs that tests start compiles all anew
_ready = False  # whether this run has brought the environment up to date
_tested: set[str] = set()  # the tests that this run has run whole, or has begun to
_LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: lint and format."""
    session.run(_python(session), "-m", "ruff", "check", *session.posargs)
    session.run(_python(session), "-m", "ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict."""
    session.run(_python(session), "-m", "mypy", *session.posargs)


@nox.session
def unit(session: nox.Session) -> None:
    """One module at a time."""
    _test(session)


@nox.session
def conformance(session: nox.Session) -> None:
    """Every store against the suite of the port."""
    _test(session)


@nox.session
def simulation(session: nox.Session) -> None:
    """The fan-out under random schedules of faults."""
    _test(session)


@nox.session
def integration(session: nox.Session) -> None:
    """Repositories, adapters and engines together."""
    _test(session)


@nox.session
def outages(session: nox.Session) -> None:
    """Acknowledged writes through outages of the engines, and the death of the writer."""
    _test(session)


@nox.session
def acceptance(session: nox.Session) -> None:
    """Whole conversations, budgets, documents and examples."""
    _test(session)


@nox.session
def coverage(session: nox.Session) -> None:
    """The lines and branches that the tests do not reach; runs those that this run has not run yet."""
    for name in _COVERED:
        if name not in _tested:
            _pytest(session, name)
    environment = {"COVERAGE_FILE": str(_COVERAGE / "all")}
    files = [str(_COVERAGE / name) for name in _COVERED]
    session.run(_python(session), "-m", "coverage", "combine", "--keep", *files, env=environment)
    session.run(_python(session), "-m", "coverage", "report", env=environment)


@nox.session
def simulate(session: nox.Session) -> None:
    """Any number of schedules of the simulation: ``nox -s simulate -- --schedules 20000 --seed 0``."""
    session.run(_python(session), "-m", "tests.simulation.campaign", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks, all or some: ``nox -s bench -- cost import``; benchmarks/README.md."""
    python = _python(session)
    project = nox.project.load_toml("pyproject.toml")
    session.run(python, "-m", "pip", "install", "--quiet", *nox.project.dependency_groups(project, "bench"))
    session.run(
        python, "-m", "benchmarks", *session.posargs, env={"AGNO_CLOUDDB_CACHE": str(Path(".cache").absolute())}
    )


@nox.session
def demo(session: nox.Session) -> None:
    """The demo, as a user runs it."""
    session.run(str(Path(_python(session)).with_name("agno-clouddb")), "demo", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Every relative link of the documents leads to a file."""
    broken = [
        f"{document}: {target}"
        for document in (*Path().glob("*.md"), *Path("docs").rglob("*.md"))
        for target in _LINK.findall(document.read_text(encoding="utf-8"))
        if not (document.parent / target).exists()
    ]
    if broken:
        session.error("links that lead nowhere:\n" + "\n".join(broken))


def _test(session: nox.Session) -> None:
    if not session.posargs:
        _tested.add(session.name)  # also when a test fails: running all again would not change that
    _pytest(session, session.name, *session.posargs)


def _pytest(session: nox.Session, name: str, *options: str) -> None:
    counted = ("--cov", "--cov-report=", "--cov-fail-under=0") if name in _COVERED else ()
    reports = (f"--junitxml={_REPORTS / name}.xml", *counted)
    session.run(
        *(_python(session), "-m", "pytest", f"tests/{name}", *reports, *(options or _WORKERS.get(name, ()))),
        env={"COVERAGE_FILE": str((_COVERAGE / name).absolute()), **_BYTE_CODE},
    )


def _python(session: nox.Session) -> str:
    """The interpreter of the environment that all sessions share, made or brought up to date by the first of them."""
    global _ready
    python = (_ENVIRONMENT / "bin" / "python").absolute()
    if not _ready:
        if not python.exists():
            session.run(sys.executable, "-m", "venv", "--clear", str(_ENVIRONMENT))
        project = nox.project.load_toml("pyproject.toml")
        # Spelled out, since pip knows dependency groups only from version 25.1 on.
        requirements = nox.project.dependency_groups(project, "lint", "types", "test")
        session.run(str(python), "-m", "pip", "install", "--quiet", "-e", ".[cli,testing]", *requirements)
        _ready = True
    return str(python)
