"""What CI makes of a report of pip-audit, which counts what it could not ask about as fine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import CHECKOUT

FINE = {"name": "click", "version": "8.1", "vulns": []}
BAD = {"name": "pymysql", "version": "1.0", "vulns": [{"id": "PYSEC-1"}]}
SKIPPED = {"name": "vine", "skip_reason": "could not be audited"}


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([FINE, SKIPPED], 0, "1 of 2 packages audited, 0 vulnerable"),
        ([FINE, BAD], 1, "pymysql 1.0: PYSEC-1"),
        ([SKIPPED], 0, "NOT AUDITED"),
        (None, 0, "NOT AUDITED"),
    ],
)
def test_the_audit_fails_on_what_is_known_and_says_what_it_could_not_ask(
    packages, status, said, tmp_path
):
    report = Path(tmp_path / "report.json")
    report.write_text("" if packages is None else json.dumps({"dependencies": packages}))
    command = [sys.executable, CHECKOUT / ".ci" / "audited.py", report]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, said in result.stdout) == (status, True), result.stdout
