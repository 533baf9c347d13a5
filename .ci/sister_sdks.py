"""Runs the contract and the SDK flows under each sister SDK, in an environment of its own.

.ci/sisters            prints the tables; exits with 1 where a test fails
.ci/sisters --update   writes them into docs/sister-sdks.md as well
.ci/sisters --check    exits with 1 where that page is out of date too

A test of a flow that an SDK breaks by itself is marked in tests/sdk with what that SDK does
(tests/sdk/differences.py), and must fail there: nothing else may. The contract runs without
encryption, as docs/comparison.py has it, on every database; the flows run on all but SQLite in
memory, where they do what they do on a file. The wheel is tested, not the checkout.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from comparison import ALL, OURS, head, page_with, row  # noqa: E402

from tests.databases import SERVERS  # noqa: E402
from tests.sdk.differences import DIFFERENCES  # noqa: E402

PAGE = ROOT / "docs" / "sister-sdks.md"
START, END = "<!-- sisters -->", "<!-- /sisters -->"
SISTERS = {7: "6.0.0", 6: "8.0.0", 5: "2.0.0"}
"""The releases that are tested."""
SDK = re.compile(r"zohocrmsdk\d-0")
COLUMNS = {suite.database: label for label, suite in OURS.items()}
"""What the tables call each database."""
FLOWS = [name for name in COLUMNS if name != "sqlite-memory"]
"""The databases of the SDK flows."""
SUITES = {suite.__name__: suite.database for suite in OURS.values()}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

WHO = """
import importlib.metadata as metadata, sys, zoho_token_orm, zohocrmsdk
from pathlib import Path
assert Path(zoho_token_orm.__file__).is_relative_to(sys.prefix), zoho_token_orm.__file__
assert Path(zohocrmsdk.__file__ or zohocrmsdk.__path__[0]).is_relative_to(sys.prefix)
(owner,) = set(metadata.packages_distributions()["zohocrmsdk"])
print(owner, metadata.version(owner))
"""


@dataclass
class Result:
    """What one SDK's tests came to."""

    kept: dict[str, set[str]] = field(default_factory=dict)
    """The promises kept, by database."""
    passed: Counter[str] = field(default_factory=Counter)
    """How many flows passed, by database."""
    differ: Counter[str] = field(default_factory=Counter)
    """How many flows the SDK breaks by itself, by database."""
    failed: list[str] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)
    """What the SDK does otherwise: the sentences of the flows that it breaks."""


def sdk(version: int) -> str:
    """The requirement of a sister SDK."""
    return f"zohocrmsdk{version}-0=={SISTERS[version]}"


def dependencies() -> list[str]:
    """What the package needs besides its SDK, as pyproject.toml has it."""
    return [each for each in PROJECT["dependencies"] if not SDK.fullmatch(Requirement(each).name)]


def test_tools() -> list[str]:
    """What the tests that run here need."""
    extras = PROJECT["optional-dependencies"]
    plugins = {"pytest-timeout", "pytest-xdist"}
    chosen = [each for each in extras["dev"] if Requirement(each).name in plugins]
    return [*extras["testing"], *extras["encryption"], *chosen]


def installation(version: int) -> list[list[str]]:
    """The commands that install the package with a sister SDK, in the checkout."""
    return [
        ["pip", "install", sdk(version), *dependencies()],
        ["pip", "install", "--no-deps", "."],
    ]


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Runs a program, in the checkout unless told otherwise; it must succeed, as well."""
    return subprocess.run(command, **{"cwd": ROOT, "check": True, **options})  # noqa: S603


def install(version: int, folder: Path) -> Path:
    """Makes the environment; returns its Python."""
    run(sys.executable, "-m", "venv", str(folder))
    python = folder / "bin" / "python"
    tools = ["pip", "install", *test_tools()]
    for _, *arguments in [*installation(version), tools]:
        # What an earlier build has left would go into the wheel.
        shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)
        run(str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments)
    check_owner(version, python, folder)
    return python


def check_owner(version: int, python: Path, folder: Path) -> None:
    """Makes sure that what is imported is the sister SDK, and the wheel."""
    done = run(str(python), "-c", WHO, cwd=folder, stdout=subprocess.PIPE, text=True)
    owner, release = done.stdout.split()
    if f"{re.sub('[-_.]+', '-', owner)}=={release}" != sdk(version):
        raise SystemExit(f"{sdk(version)} was asked for, and {owner} {release} is installed")


def copy_tests(folder: Path) -> Path:
    """A folder with the tests, and without the package beside them."""
    for name in ("tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run_tests(python: Path, folder: Path) -> Result:
    """Runs the tests with that Python."""
    report = folder / "report.xml"
    suites = [f"docs/comparison.py::{suite}" for suite in SUITES]
    options = ["-q", "-n", "2", "-p", "no:cacheprovider", "-r", "fE", f"--junitxml={report}"]
    command = [str(python), "-m", "pytest", *options, *suites, "tests/sdk"]
    command += ["-k", "not (sdk and sqlite-memory)"]
    environment = {**os.environ, "ZOHO_TOKEN_ORM_REQUIRE": ",".join(SERVERS)}
    done = run(*command, cwd=folder, env=environment, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit("the tests did not run")
    return read(report)


def read(report: Path) -> Result:
    """What a report of pytest's says."""
    result = Result(kept={name: set() for name in COLUMNS})
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314
        suite, name = case.get("classname", ""), case.get("name", "")
        note(result, suite, name, {child.tag: child for child in case})
    return result


def note(result: Result, suite: str, name: str, outcome: dict[str, ElementTree.Element]) -> None:
    """Takes note of one test."""
    skipped = outcome.get("skipped")
    if "failure" in outcome or "error" in outcome:
        result.failed.append(f"{suite}::{name}")
    elif suite.startswith("docs.comparison."):
        if skipped is None:
            result.kept[SUITES[suite.rpartition(".")[2]]].add(name)
    elif skipped is None:
        result.passed[database_of(name)] += 1
    elif skipped.get("type") == "pytest.xfail":
        result.differ[database_of(name)] += 1
        result.reasons.add(skipped.get("message", ""))


def database_of(name: str) -> str:
    """The database of a flow, by the test's name."""
    (found,) = (each for each in FLOWS if re.search(rf"\[(?:.*-)?{each}(?:-.*)?\]", name))
    return found


def complaints(version: int, result: Result) -> list[str]:
    """What is wrong with a result."""
    found = [f"{sdk(version)}: {name} failed" for name in result.failed]
    known = {each.sentence for each in DIFFERENCES if version in each.sdks}
    for database, kept in result.kept.items():
        if lost := set(ALL) - kept:
            found.append(f"{sdk(version)}, {database}: not kept: {', '.join(sorted(lost))}")
    found += [f"{sdk(version)}, {name}: no flow ran" for name in FLOWS if not result.passed[name]]
    found += [f"{sdk(version)}: not listed: {reason}" for reason in result.reasons - known]
    return found


def tables(results: dict[int, Result]) -> str:
    """What stands between the marks of the page."""
    promises = {
        version: [f"{len(result.kept[name])}/{len(ALL)}" for name in COLUMNS]
        for version, result in results.items()
    }
    flows = {
        version: [flow_count(result, name) for name in FLOWS] for version, result in results.items()
    }
    commands = "\n".join(shlex.join(command) for command in installation(max(SISTERS)))
    return "\n\n".join(
        [
            f"```sh\n{commands}\n```",
            table("Promises kept", COLUMNS, promises),
            table("SDK flows passed", FLOWS, flows),
            differences(),
        ]
    )


def flow_count(result: Result, name: str) -> str:
    """How many flows passed, of how many."""
    return f"{result.passed[name]}/{result.passed[name] + result.differ[name]}"


def table(label: str, databases: Iterable[str], rows: dict[int, list[str]]) -> str:
    """A table with a row for each SDK."""
    lines = head(label, [COLUMNS[name] for name in databases], "---:")
    lines += [row(f"`{sdk(version)}`", cells) for version, cells in rows.items()]
    return "\n".join(lines)


def differences() -> str:
    """What the SDKs do otherwise, a line each."""
    return "\n".join(
        f"- **{', '.join(f'{version}-0' for version in each.sdks)}**: {each.sentence}"
        for each in DIFFERENCES
    )


def examine(version: int) -> Result:
    """All of one SDK, in a folder that goes afterwards."""
    with tempfile.TemporaryDirectory(prefix="zoho_token_orm-sisters-") as folder:
        print(f"--- {sdk(version)}", flush=True)
        started = time.monotonic()
        python = install(version, Path(folder, "environment"))
        installed = time.monotonic()
        tests = Path(folder, "tests")
        tests.mkdir()
        result = run_tests(python, copy_tests(tests))
        ended = time.monotonic()
        print(f"installed in {installed - started:.0f} s, tested in {ended - installed:.0f} s")
    return result


def main() -> int:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 where the page is stale")
    parser.add_argument("--update", action="store_true", help="write docs/sister-sdks.md")
    given = parser.parse_args()
    results = {version: examine(version) for version in SISTERS}
    print(tables(results))
    wrong = [text for version, result in results.items() for text in complaints(version, result)]
    page = page_with(PAGE, tables(results), START, END)
    if given.update and not wrong:
        PAGE.write_text(page, encoding="utf-8")
    if given.check and PAGE.read_text(encoding="utf-8") != page:
        wrong.append(f"{PAGE.name} is out of date: run .ci/sisters --update")
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
