"""The contract suite itself: its promises can be kept, and the test of each can fail."""

from __future__ import annotations

import inspect
import logging
import threading

import pytest

from tests.contract.faults import FAULTS
from tests.contract.reference import ReferenceStore
from zoho_token_orm.testing import contract
from zoho_token_orm.testing.contract import AREAS, TokenStoreContract

pytest_plugins = ["pytester"]

PROMISES = {
    name: test for name, test in inspect.getmembers(TokenStoreContract) if name.startswith("test_")
}


class TestReferenceStore(TokenStoreContract):
    @pytest.fixture
    def store(self) -> ReferenceStore:
        return ReferenceStore()


def broken_promises(make_store, caplog):
    """The tests that fail for such a store."""
    return {name for name in PROMISES if not is_kept(name, make_store(), caplog)}


def is_kept(name, store, caplog):
    caplog.clear()
    given = {"self": TokenStoreContract(), "store": store, "second_store": store, "caplog": caplog}
    try:
        PROMISES[name](*(given[wanted] for wanted in inspect.signature(PROMISES[name]).parameters))
    except (Exception, pytest.fail.Exception):
        return False
    return True


@pytest.mark.parametrize("store", FAULTS, ids=lambda store: store.__name__)
def test_fault_breaks_exactly_the_promises_that_name_it(store, caplog):
    assert broken_promises(store, caplog) == FAULTS[store]


def test_every_promise_is_broken_by_some_fault():
    assert set().union(*FAULTS.values()) == PROMISES.keys()


def test_each_promise_is_one_sentence_of_its_own():
    sentences = [test.__doc__ for test in PROMISES.values()]
    assert [each for each in sentences if not (each[0].isupper() and each.endswith("."))] == []
    assert [each for each in sentences if "\n" in each or "|" in each] == []
    assert len(set(sentences)) == len(sentences)


def test_each_promise_belongs_to_one_area():
    areas = [name for area in AREAS for name in vars(area) if name.startswith("test_")]
    assert sorted(areas) == sorted(PROMISES)
    assert all(area.__doc__.endswith(".") for area in AREAS)


def test_suite_runs_as_documented(pytester):
    pytester.makepyfile(
        """
        import pytest
        from tests.contract.faults import IgnoresCase
        from zoho_token_orm.testing import TokenStoreContract

        class TestMyStore(TokenStoreContract):
            @pytest.fixture
            def store(self):
                return IgnoresCase()
        """
    )
    result = pytester.runpytest("-p", "no:cacheprovider")
    result.assert_outcomes(passed=len(PROMISES) - 1, failed=1)
    result.stdout.fnmatch_lines(["FAILED *::TestMyStore::test_case_counts*"])


def test_suite_says_which_fixture_it_needs(pytester):
    pytester.makepyfile(
        """
        from zoho_token_orm.testing import TokenStoreContract

        class TestMyStore(TokenStoreContract):
            pass
        """
    )
    result = pytester.runpytest("-p", "no:cacheprovider", "-k", "test_case_counts")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*override the fixture 'store'*"])


def test_deadlock_is_a_failure_and_not_a_wait(monkeypatch):
    monkeypatch.setattr(contract, "PATIENCE", 0.01)
    never = threading.Event()
    with pytest.raises(AssertionError, match="deadlock"):
        contract.at_once(never.wait, never.wait)
    never.set()


def test_threads_start_together_and_their_errors_come_back():
    together = threading.Barrier(contract.THREADS)

    def meet():
        together.wait()
        raise ValueError

    errors = contract.at_once(*[meet] * contract.THREADS)
    assert [type(error) for error in errors] == [ValueError] * contract.THREADS


def test_shown_follows_every_cause():
    error = ValueError("outer")
    error.__cause__ = KeyError("cause")
    error.cause = TypeError("of the SDK")
    assert {"outer", "cause", "of the SDK"} <= set(
        contract.shown(error).replace("'", '"').split('"')
    )


def test_promise_about_logs_sees_every_level(caplog):
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("zoho_token_orm").debug("1000.x")
    assert "1000." in caplog.text
