"""Results as JSON: what was measured, when and with what."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.options import Options

__all__ = ["FOLDER", "PARTS", "read", "write"]

FOLDER = Path(__file__).parent / "results"

PARTS = ("cost", "throughput", "overhead", "growth", "import")
"""The parts of the benchmarks, in the order in which they are shown."""

_PACKAGES = ("agno_clouddb", "agno", "aioboto3", "boto3", "google-cloud-firestore", "grpcio", "pydantic")


def write(part: str, options: Options, measured: dict[str, Any]) -> Path:
    """Keep what a part has measured, in place of what it had measured before.

    Returns:
        The file.
    """
    FOLDER.mkdir(exist_ok=True)
    file = FOLDER / f"{part}.json"
    result = {
        "part": part,
        "made": datetime.now(UTC).date().isoformat(),
        "full": options.full,
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "packages": {name: version(name) for name in _PACKAGES},
        **measured,
    }
    file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return file


def read() -> dict[str, dict[str, Any]]:
    """What is kept, by part."""
    return {
        part: json.loads((FOLDER / f"{part}.json").read_text(encoding="utf-8"))
        for part in PARTS
        if (FOLDER / f"{part}.json").exists()
    }
