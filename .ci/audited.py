"""Reads a report of pip-audit: known vulnerabilities are status 1; what was not asked is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(report: Path) -> int:
    """Prints what the report says; returns the exit status."""
    text = report.read_text()
    packages: list[dict[str, Any]] = json.loads(text)["dependencies"] if text else []
    audited = [package for package in packages if "skip_reason" not in package]
    vulnerable = [package for package in audited if package["vulns"]]
    for package in vulnerable:
        names = ", ".join(each["id"] for each in package["vulns"])
        print(f"{package['name']} {package['version']}: {names}")
    if not audited:
        print("NOT AUDITED: the network does not let pip-audit ask for known vulnerabilities")
    else:
        print(f"{len(audited)} of {len(packages)} packages audited, {len(vulnerable)} vulnerable")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
