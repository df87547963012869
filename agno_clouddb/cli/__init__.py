"""The agno-clouddb command, which ``pip install "agno_clouddb[cli]"`` brings."""
