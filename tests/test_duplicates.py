"""Which of several rows of one authorization stays, and with what."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from zoho_token_orm.duplicates import resolved
from zoho_token_orm.identity import UNIQUE
from zoho_token_orm.mapping import COLUMNS


def row(**has: Any) -> dict[str, Any]:
    return {**dict.fromkeys(COLUMNS), **has}


def test_rows_with_nothing_in_common_stay_as_they_are():
    rows = [row(id="1", user_name="a"), row(id="2", user_name="b"), row(id="3"), row(id="4")]
    assert resolved(rows) == (rows, [0, 1, 2, 3])


def test_the_newest_expiry_wins_and_none_is_the_oldest():
    rows = [row(user_name="a", expiry_time=expiry) for expiry in (None, 5, 9, 7)]
    assert resolved(rows).stays == [2, 2, 2, 2]


def test_of_two_as_new_that_one_stays_which_tells_more():
    rows = [row(user_name="a"), row(user_name="a", refresh_token="r"), row(user_name="a")]
    assert resolved(rows).stays == [1, 1, 1]


def test_what_the_row_that_stays_lacks_it_gets_newest_first():
    rows = [
        row(user_name="a", expiry_time=3, access_token="new"),
        row(user_name="a", expiry_time=1, access_token="old", refresh_token="r1", api_domain="d"),
        row(user_name="a", expiry_time=2, access_token="mid", refresh_token="r2"),
    ]
    has = {"access_token": "new", "refresh_token": "r2", "api_domain": "d"}
    assert resolved(rows).rows[0] == row(user_name="a", expiry_time=3, **has)


def test_an_access_token_comes_with_its_own_expiry():
    rows = [row(user_name="a", expiry_time=9), row(user_name="a", expiry_time=1, access_token="x")]
    assert resolved(rows).rows[0] == row(user_name="a", expiry_time=1, access_token="x")
    rows = [row(user_name="a", access_token="new"), row(user_name="a", access_token="x")]
    rows[0]["grant_token"] = "tells more"
    rows[1]["expiry_time"] = None
    assert resolved(rows).rows[0]["expiry_time"] is None


def test_nothing_goes_from_one_user_or_client_to_another():
    for own in ("user_name", "client_id"):
        new = row(grant_token="g", expiry_time=2, **{own: "one"})
        old = row(grant_token="g", expiry_time=1, refresh_token="r", **{own: "two"})
        assert resolved([new, old]) == ([new, old], [0, 0])


def test_a_row_stays_that_has_something_in_common_with_a_row_that_goes_alone():
    rows = [
        row(user_name="a", expiry_time=3),
        row(user_name="a", expiry_time=2, refresh_token="r", client_id="other"),
        row(refresh_token="r", expiry_time=1, client_id="another"),
    ]
    rows[0]["client_id"] = "own"
    assert resolved(rows).stays == [0, 0, 2]


def test_what_the_row_that_stays_gets_is_unique_from_then_on():
    rows = [
        row(user_name="a", expiry_time=3),
        row(user_name="a", expiry_time=2, refresh_token="r"),
        row(refresh_token="r", expiry_time=1, api_domain="d"),
    ]
    assert resolved(rows).stays == [0, 0, 0]
    assert resolved(rows).rows[0] == row(
        user_name="a", expiry_time=3, refresh_token="r", api_domain="d"
    )


def test_what_is_put_together_of_two_rows_is_no_token_that_never_ends():
    rows = [row(user_name="a", access_token="x"), row(user_name="a", refresh_token="r")]
    (filled, _), stays = resolved(rows)
    assert stays == [0, 0]
    assert filled == row(user_name="a", access_token="x", refresh_token="r", expiry_time=0)


def test_other_columns_may_be_unique():
    rows = [row(access_token="a", expiry_time=1), row(access_token="a", expiry_time=2)]
    assert resolved(rows).stays == [0, 1]
    assert resolved(rows, (*UNIQUE, "access_token")).stays == [1, 1]


some = st.sampled_from([None, None, "1", "2", "3"])
rows_of_any_kind = st.lists(
    st.fixed_dictionaries(
        dict.fromkeys((*UNIQUE, "access_token", "client_id"), some)
        | {"expiry_time": st.none() | st.integers(0, 3)}
    ).map(lambda has: row(**has)),
    max_size=8,
)


@given(rows_of_any_kind)
def test_whatever_the_rows_are_those_that_stay_are_unique_and_nothing_is_made_up(rows):
    before = [dict(each) for each in rows]
    filled, stays = resolved(rows)
    assert rows == before
    kept = sorted(set(stays))
    assert all(stays[place] == place for place in kept)
    for name in UNIQUE:
        values = [filled[place][name] for place in kept if filled[place][name]]
        assert len(values) == len(set(values))
    for place in range(len(rows)):
        winner = filled[stays[place]]
        assert (rows[place]["expiry_time"] or 0) <= (rows[stays[place]]["expiry_time"] or 0)
        group = [rows[other] for other, stay in enumerate(stays) if stay == stays[place]]
        for name, value in winner.items():
            made_up = 0 if name == "expiry_time" and winner["refresh_token"] else value
            assert value in [each[name] for each in group] or value == made_up == 0
        if winner["access_token"] and winner["refresh_token"] and winner != rows[stays[place]]:
            assert winner["expiry_time"] is not None


@given(rows_of_any_kind)
def test_a_user_who_stays_keeps_a_refresh_token_if_any_row_that_goes_into_theirs_has_one(rows):
    filled, stays = resolved(rows)
    taken = {filled[place]["refresh_token"] for place in set(stays)}
    for place, stay in enumerate(stays):
        lost, winner = rows[place], filled[stay]
        are_one = all(
            not lost[name] or not winner[name] or lost[name] == winner[name]
            for name in ("user_name", "client_id")
        )
        if lost["refresh_token"] and are_one and not winner["refresh_token"]:
            assert lost["refresh_token"] in taken  # it is another row's


@given(rows_of_any_kind)
def test_resolving_what_is_resolved_changes_nothing(rows):
    filled, stays = resolved(rows)
    kept = [filled[place] for place in sorted(set(stays))]
    assert resolved(kept) == (kept, list(range(len(kept))))
