"""What .ci/sisters makes of a report: nothing that fails or is missing counts as fine."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest

from tests.support import CHECKOUT


@pytest.fixture(scope="module")
def sisters():
    spec = importlib.util.spec_from_file_location("sisters", CHECKOUT / ".ci" / "sister_sdks.py")
    module = importlib.util.module_from_spec(spec)
    paths = list(sys.path)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = paths
    del sys.modules[spec.name]


def case(suite: str, name: str, outcome: str = "") -> str:
    return f"<testcase classname={quoteattr(suite)} name={quoteattr(name)}>{outcome}</testcase>"


@pytest.fixture
def cases(sisters) -> dict[tuple[str, str], str]:
    """A report in which all is as it should be: the outcome by suite and name."""
    known = quoteattr(sisters.DIFFERENCES[0].sentence)
    outcomes = {
        (f"docs.comparison.{suite}", name): "" for suite in sisters.SUITES for name in sisters.ALL
    }
    for name in sisters.FLOWS:
        outcomes["tests.sdk.test_users", f"test_one[{name}]"] = ""
        outcomes["tests.sdk.test_users", f"test_two[{name}-grant]"] = ""
        skipped = f'<skipped type="pytest.xfail" message={known}/>'
        outcomes["tests.sdk.test_sign_out", f"test_three[{name}]"] = skipped
    return outcomes


def judged(sisters, cases: dict[tuple[str, str], str], folder: Path, version: int = 7):
    report = folder / "report.xml"
    lines = [case(*test, outcome) for test, outcome in cases.items()]
    report.write_text(f"<testsuites><testsuite>{''.join(lines)}</testsuite></testsuites>")
    result = sisters.read(report)
    return result, sisters.complaints(version, result)


def test_a_report_in_which_all_is_well_is_counted(sisters, cases, tmp_path):
    result, complaints = judged(sisters, cases, tmp_path)
    assert complaints == []
    assert {len(kept) for kept in result.kept.values()} == {len(sisters.ALL)}
    assert [sisters.flow_count(result, name) for name in sisters.FLOWS] == ["2/3"] * 4


@pytest.mark.parametrize("outcome", ["<failure/>", "<error/>"])
@pytest.mark.parametrize("number", [0, -1])
def test_a_test_that_fails_is_a_complaint(sisters, cases, tmp_path, outcome, number):
    suite, name = list(cases)[number]
    cases[suite, name] = outcome
    assert f"{suite}::{name} failed" in " ".join(judged(sisters, cases, tmp_path)[1])


@pytest.mark.parametrize("outcome", [None, "<skipped/>"])
def test_a_promise_that_was_not_tested_is_a_complaint(sisters, cases, tmp_path, outcome):
    first = next(iter(cases))
    if outcome is None:
        del cases[first]
    else:
        cases[first] = outcome
    (complaint,) = judged(sisters, cases, tmp_path)[1]
    assert complaint.endswith(f"not kept: {first[1]}")


def test_a_database_without_flows_is_a_complaint(sisters, cases, tmp_path):
    left = {test: outcome for test, outcome in cases.items() if "[mariadb" not in test[1]}
    (complaint,) = judged(sisters, left, tmp_path)[1]
    assert complaint.endswith("mariadb: no flow ran")


def test_a_difference_that_is_not_listed_for_that_sdk_is_a_complaint(sisters, cases, tmp_path):
    last = list(cases)[-1]
    only_5 = next(each.sentence for each in sisters.DIFFERENCES if each.sdks == (5,))
    cases[last] = f'<skipped type="pytest.xfail" message={quoteattr(only_5)}/>'
    assert judged(sisters, cases, tmp_path, version=5)[1] == []
    assert judged(sisters, cases, tmp_path, version=7)[1] != []


def test_no_sdk_is_among_the_dependencies_that_are_installed_beside_a_sister(sisters):
    names = [each for each in sisters.dependencies() if "zohocrmsdk" in each]
    assert names == []
    assert len(sisters.dependencies()) == len(sisters.PROJECT["dependencies"]) - 1


def test_the_page_shows_the_commands_that_are_run(sisters):
    page = sisters.PAGE.read_text(encoding="utf-8")
    assert [
        command
        for command in map(shlex.join, sisters.installation(max(sisters.SISTERS)))
        if f"\n{command}\n" not in page
    ] == []
