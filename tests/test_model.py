"""The store and a plain dict are given the same random operations, and never differ.

``ZOHO_TOKEN_ORM_EXAMPLES=5000 pytest tests/test_model.py`` looks further than ``make test`` does.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from tests.databases import Database
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.testing.contract import make_token, read

EXAMPLES = int(os.environ.get("ZOHO_TOKEN_ORM_EXAMPLES", "0"))
pytestmark = pytest.mark.timeout(0 if EXAMPLES else 600)
SETTINGS = settings(
    max_examples=EXAMPLES or 120,
    derandomize=not EXAMPLES,  # ``make test`` has to give the same answer twice
    stateful_step_count=30,
    deadline=None,
    report_multiple_bugs=False,
)

Fields = dict[str, "str | None"]
Has = dict[str, str]


# The model


class Refused(Exception):
    """The model's SDKException: its text is part of the message that the store must give."""


@dataclass(eq=False)
class Twin:
    """The model's side of one token object.

    Attributes:
        fields: All that the object holds, None and empty strings too.
        known: By worker, the id of the row that it was last loaded from or saved to there.
    """

    fields: Fields
    known: dict[int, str] = field(default_factory=dict)

    @property
    def has(self) -> Has:
        return has(self.fields)

    def meet(self, worker: int, id: str) -> None:
        """An id that came from the store stays known as such, where the token keeps it."""
        if id == self.fields["id"] or self.fields["id"] != self.known.get(worker):
            self.known[worker] = id


class Model:
    """The contract (``find_token``, ``save_token`` and so on) over one dict: id -> what it has.

    The dict's order is the rows' age. Nothing here is taken from the package: it is a second
    reading of the same contract. ``seen`` counts what has happened.
    """

    def __init__(self, seen: Counter[str]) -> None:
        self.rows: dict[str, Has] = {}
        self.seen = seen

    # The store's methods

    def find_token(self, twin: Twin, worker: int) -> bool:
        answers = [id for id in self.named(twin.has) if self.is_own(id, twin.has)]
        if not answers:
            return False
        self.seen["find past a foreign row"] += answers[0] != self.named(twin.has)[0]
        self.fill(twin, answers[0])
        twin.meet(worker, answers[0])
        return True

    def find_token_by_id(self, id: str | None, worker: int) -> Twin | None:
        return self.made(id, worker) if id in self.rows else None

    def save_token(self, twin: Twin, worker: int, new_id: str | None) -> None:
        """``new_id`` is what the store has made, in case that there is a new row."""
        has, known = twin.has, twin.known.get(worker)
        if known and not self.holds_authorization(has, known):
            raise self.refused("has been deleted")
        ids = self.named(has, known)
        if ids:
            id = self.id_after(ids[0], has, known)
            self.become_one(ids, has, id)
        else:
            id = self.inserted(has, new_id)
        twin.fields["id"] = id
        twin.meet(worker, id)

    def delete_token(self, id: str | None) -> None:
        if not id:
            raise self.refused("needs an id")
        self.seen["delete"] += id in self.rows
        self.rows.pop(id, None)

    def get_tokens(self, worker: int) -> list[Twin]:
        return [self.made(id, worker) for id in self.rows]

    def delete_tokens(self) -> None:
        self.rows.clear()

    # Which rows a token names

    def named(self, has: Has, known: str | None = None) -> list[str]:
        """The ids of the rows that the token names, each once, in the order of its identities.

        DESIGN is silent on a token whose id the caller has changed since it was loaded: it goes on
        naming the row that it came from, after its own id. Of rows with one access token, the
        oldest is named first.
        """
        names = [("id", has.get("id")), ("id", known), ("user_name", has.get("user_name"))]
        if "client_id" not in has and "client_secret" not in has:
            names.append(("access_token", has.get("access_token")))
        names += [(name, has.get(name)) for name in ("grant_token", "refresh_token")]
        ids = [id for name, value in names for id in self.rows if self.holds(id, name, value)]
        return list(dict.fromkeys(ids))

    def holds(self, id: str, name: str, value: str | None) -> bool:
        return value is not None and (id if name == "id" else self.rows[id].get(name)) == value

    def is_own(self, id: str, has: Has) -> bool:
        """Whether the row is not another user's or another client's than the token's own."""
        row = self.rows[id]
        both = [name for name in ("user_name", "client_id") if name in row and name in has]
        return all(row[name] == has[name] for name in both)

    def holds_authorization(self, has: Has, known: str) -> bool:
        names = [("id", known), *((name, has.get(name)) for name in ("id", *UNIQUE_TOKENS))]
        return any(self.holds(id, name, value) for name, value in names for id in self.rows)

    def goes(self, id: str, has: Has) -> bool:
        """Whether the row is the same authorization as the first that the token names.

        DESIGN lets those go that hold a unique value of the token's. The access token, which is
        not unique, makes them one too, where no user is known of the row.
        """
        if any(self.holds(id, name, has.get(name)) for name in ("user_name", *UNIQUE_TOKENS)):
            return True
        has_client = "client_id" in has or "client_secret" in has
        is_early = "user_name" not in self.rows[id]
        return (
            is_early and not has_client and self.holds(id, "access_token", has.get("access_token"))
        )

    # What becomes of rows and tokens

    def inserted(self, has: Has, new_id: str | None) -> str:
        if not any(name in has for name in ("access_token", *UNIQUE_TOKENS)):
            raise self.refused("nothing to store")
        id = has.get("id") or new_id
        assert id is not None, "the store has made no id"
        assert id == has.get("id") or (id.isdecimal() and id not in self.rows)
        self.rows[id] = stored(has)
        return id

    def id_after(self, row_id: str, has: Has, known: str | None) -> str:
        """The caller's own id; the row's, where the token has none or has it from the store."""
        own = has.get("id")
        return row_id if own in (None, known) else own

    def become_one(self, ids: list[str], has: Has, id: str) -> None:
        """The first row stays, at its place; those of the others that go leave what it lacks.

        DESIGN does not say that they leave anything; but they "become one", as in the store.
        """
        first, *others = ids
        gone = [other for other in others if self.goes(other, has)]
        row = updated(self.rows[first], has)
        for other in gone:
            row = joined(row, self.rows[other])
        row |= stored(has)
        self.count(first, id, gone)
        rows = {key: value for key, value in self.rows.items() if key not in gone}
        self.rows = {(id if k == first else k): (row if k == first else v) for k, v in rows.items()}

    def fill(self, twin: Twin, id: str) -> None:
        """What the token lacks; the expiry only along with the access token that it belongs to."""
        twin.fields.update(completed(twin.has, {**self.rows[id], "id": id}))

    def made(self, id: str, worker: int) -> Twin:
        twin = Twin({**dict.fromkeys(NAMES), **self.rows[id], "id": id})
        twin.meet(worker, id)
        return twin

    def count(self, first: str, id: str, gone: list[str]) -> None:
        self.seen["rename"] += id != first
        self.seen["merge of two"] += len(gone) == 1
        self.seen["merge of more"] += len(gone) > 1

    def refused(self, text: str) -> Refused:
        self.seen[text] += 1
        return Refused(text)


UNIQUE_TOKENS = ("grant_token", "refresh_token")
UNIQUE = ("id", "user_name", *UNIQUE_TOKENS)


def has(fields: Fields) -> Has:
    """What counts: an empty string means the same as None."""
    return {name: value for name, value in fields.items() if value}


def stored(has: Has) -> Has:
    """A row of what a token has: the id is its key, and an expiry is a number."""
    row = {name: value for name, value in has.items() if name != "id"}
    return row | ({"expires_in": str(int(has["expires_in"]))} if "expires_in" in has else {})


def updated(row: Has, has: Has) -> Has:
    """The row with what the token has; another access token takes the old one's expiry along."""
    is_same = has.get("access_token") in (None, row.get("access_token"))
    kept = {name: value for name, value in row.items() if is_same or name != "expires_in"}
    return {**kept, **stored(has)}


def completed(has: Has, row: Has) -> Has:
    """What there is, and what the row adds: no expiry beside another access token than its own."""
    belongs = has.get("access_token") in (None, row.get("access_token"))
    return {**{name: row[name] for name in row if belongs or name != "expires_in"}, **has}


def joined(row: Has, other: Has) -> Has:
    """What the row has, and what the other one adds: access token and expiry come as a pair."""
    takes_pair = "access_token" not in row and "access_token" in other
    without = row if takes_pair else other
    without = {name: value for name, value in without.items() if name != "expires_in"}
    return {**other, **without} if takes_pair else {**without, **row}


# The operations

TEXTS = [
    "1000.abc",
    "1000.ABC",
    "1000.abc ",
    "1000.\u00e4",
    "1000.a\u0308",
    "o'b\\%s_",
    "\U0001f600",
]
"""Case twins, accents in two encodings, trailing spaces, and what SQL and drivers may trip over."""
USERS = ["alice", "Alice", "alice ", "\u00e4lice", "a\u0308lice", "\U0001f600:7001"]
POOLS: dict[str, list[str]] = {
    "id": ["own", "OWN", "own ", "\u00f6wn", "1 or 1=1"],
    "user_name": USERS,
    "client_id": ["1000.CLIENT", "1000.client"],
    "client_secret": ["secret", "s\u00e9cret"],
    "refresh_token": TEXTS,
    # The last but one is how a store might encode the one before that is not ASCII.
    "access_token": [*TEXTS[:4], "UTF-8''1000.%C3%A4", "1000.a%CC%88"],
    "grant_token": TEXTS,
    "expires_in": ["0", "17", "0017", "4102444800000"],
    "redirect_url": ["https://example.com/?a=%41", "https://example.com/\u00e4"],
    "api_domain": ["https://www.zohoapis.com", "https://www.zohoapis.eu"],
}
NAMES = list(POOLS)
NAMING = ["id", "user_name", "access_token", *UNIQUE_TOKENS, "client_id"]


def login(number: int, lacks: tuple[str, ...]) -> Fields:
    """A whole row, but for what it lacks, with nothing in it that is unique and another has."""
    fields: Fields = {name: values[number % len(values)] for name, values in POOLS.items()}
    return {**fields, "id": None, **dict.fromkeys(lacks)}


PLACES = st.integers(0, 5)
IDS = PLACES | st.sampled_from([*POOLS["id"], None, ""])
"""Those of existing rows, as a place in the table; or ids of the caller's own."""


def some(values: dict[str, list[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """One of the values for some of the names: the same few again, so that tokens collide."""
    names = {
        name: st.sampled_from([LACKS, *own, *[LACKS] * len(own)]) for name, own in values.items()
    }
    return st.fixed_dictionaries(names).map(
        lambda drawn: {name: value for name, value in drawn.items() if value is not LACKS}
    )


LACKS = object()
FRESH = some({name: [*values, ""] for name, values in POOLS.items()})
CHANGES = st.just({}) | some({name: [None, *values, ""] for name, values in POOLS.items()})
OF_ROWS = some({name: list(range(6)) for name in NAMING})
OF_TWO_ROWS = st.sampled_from([*itertools.combinations(NAMING, 2)]).flatmap(
    lambda names: st.fixed_dictionaries(dict.fromkeys(names, PLACES))
)
TOKENS = (
    st.tuples(FRESH, st.just({}))
    | st.tuples(st.just({}) | FRESH, OF_ROWS)
    | st.tuples(st.just({}), OF_TWO_ROWS)
)
"""The fields of a new token; and for others, the place of the row whose value they take."""
NAMES_A_ROW = st.sampled_from(["user_name", "access_token", *UNIQUE_TOKENS])
LACKING = [
    (),
    ("user_name",),
    ("redirect_url", "api_domain"),
    ("client_id", "client_secret"),
    ("access_token", "expires_in"),
    ("access_token", "grant_token"),
    ("user_name", "refresh_token", "redirect_url"),
]
"""What a row may lack, so that it can get it from another one that it becomes one with."""
BEFORE = st.lists(st.sampled_from(LACKING), min_size=3, max_size=len(USERS))
WORKERS = st.integers(0, 1)


@dataclass(eq=False)
class Pair:
    """One token object and the model's side of it."""

    token: OAuthToken
    twin: Twin

    @classmethod
    def of(cls, fields: Fields) -> Pair:
        """A new token object; its own constructor takes not every set of fields that setters do."""
        token = make_token(**{**fields, "id": fields["id"] or ""})
        token.set_id(fields["id"])
        return cls(token, Twin(fields))

    def change(self, changes: Fields) -> None:
        same = Pair.of({**self.twin.fields, **changes}).token
        for name in changes:
            setter = "user_signature" if name == "user_name" else name
            getattr(self.token, f"set_{setter}")(getattr(same, f"get_{setter}")())
        self.twin.fields.update(changes)


class Machine(RuleBasedStateMachine):
    """Gives each operation to a store and to the model, and compares all that can be seen of it.

    Args:
        stores: The workers' stores on one database; two of them may be one object.
        seen: Counts what has happened.
    """

    pairs = Bundle("pairs")

    def __init__(self, stores: list[SQLAlchemyTokenStore], seen: Counter[str]) -> None:
        super().__init__()
        self.stores = stores
        self.model = Model(seen)
        self.turn = 0
        self.stores[0].delete_tokens()

    def known_by(self, worker: int) -> int:
        """Whose knowledge of token objects it is: workers with one store share theirs."""
        return self.stores.index(self.stores[worker])

    def id_of(self, choice: str | int | None) -> str | None:
        if not isinstance(choice, int):
            return choice
        ids = list(self.model.rows)
        return ids[choice % len(ids)] if ids else None

    def fields_of(self, token: tuple[Fields, dict[str, int]]) -> Fields:
        fields, places = token
        of_rows = {name: self.value_at(place, name) for name, place in places.items()}
        return {**dict.fromkeys(NAMES), **fields, **of_rows}

    def value_at(self, place: int, name: str) -> str | None:
        id = self.id_of(place)
        return id if id is None or name == "id" else self.model.rows[id].get(name)

    # The rules

    @initialize(target=pairs, lacking=BEFORE, worker=WORKERS)
    def rows_of_before(self, lacking: list[tuple[str, ...]], worker: int) -> object:
        rows = (login(*both) for both in enumerate(lacking))
        return multiple(*[self.saved(fields, worker) for fields in rows])

    @precondition(lambda self: len(self.model.rows) < 2)
    @rule(target=pairs, lacking=BEFORE, worker=WORKERS)
    def new_rows(self, lacking: list[tuple[str, ...]], worker: int) -> object:
        return self.rows_of_before(lacking, worker)

    @rule(target=pairs, token=TOKENS, worker=WORKERS)
    def save_new(self, token: tuple[Fields, dict[str, int]], worker: int) -> Pair:
        return self.saved(self.fields_of(token), worker)

    @rule(pair=pairs, changes=CHANGES, worker=WORKERS)
    def save_again(self, pair: Pair, changes: Fields, worker: int) -> None:
        pair.change(changes)
        self.save(pair, worker)

    @rule(target=pairs, token=TOKENS, worker=WORKERS)
    def find_new(self, token: tuple[Fields, dict[str, int]], worker: int) -> Pair:
        pair = Pair.of(self.fields_of(token))
        self.find(pair, worker)
        return pair

    @rule(pair=pairs, changes=CHANGES, worker=WORKERS)
    def find_again(self, pair: Pair, changes: Fields, worker: int) -> None:
        pair.change(changes)
        self.find(pair, worker)

    @rule(pair=pairs, changes=CHANGES, worker=WORKERS)
    def find_change_and_save(self, pair: Pair, changes: Fields, worker: int) -> None:
        """As the SDK does where it refreshes an access token."""
        self.find(pair, worker)
        pair.change(changes)
        self.save(pair, worker)

    @precondition(lambda self: self.model.rows)
    @rule(place=PLACES, id=st.sampled_from(POOLS["id"]), name=NAMES_A_ROW, worker=WORKERS)
    def take_over(self, place: int, id: str, name: str, worker: int) -> None:
        """A new token with an id of its caller's own, and one other name of a row."""
        self.saved(self.fields_of(({"id": id}, {name: place})), worker)

    @rule(target=pairs, choice=IDS, worker=WORKERS)
    def load(self, choice: str | int | None, worker: int) -> object:
        id = self.id_of(choice)
        token = self.stores[worker].find_token_by_id(id)
        twin = self.model.find_token_by_id(id, self.known_by(worker))
        assert (token is None) == (twin is None)
        return multiple() if twin is None else self.loaded(token, twin)

    @rule(target=pairs, worker=WORKERS)
    def load_all(self, worker: int) -> object:
        tokens = self.stores[worker].get_tokens()
        twins = self.model.get_tokens(self.known_by(worker))
        return multiple(*(self.loaded(*both) for both in zip(tokens, twins, strict=True)))

    @precondition(lambda self: self.model.rows)
    @rule(choice=PLACES | IDS, worker=WORKERS)
    def delete(self, choice: str | int | None, worker: int) -> None:
        id = self.id_of(choice)
        self.compare(
            lambda: self.stores[worker].delete_token(id), lambda: self.model.delete_token(id)
        )

    @precondition(lambda self: len(self.model.rows) > 3)
    @rule(worker=WORKERS, is_purge=st.booleans())
    def delete_all(self, worker: int, is_purge: bool) -> None:
        if is_purge:
            assert self.stores[worker].purge(timedelta(days=365)) == 0
            assert self.stores[worker].purge(timedelta(0)) == len(self.model.rows)
        else:
            self.stores[worker].delete_tokens()
        self.model.delete_tokens()

    # What they have in common

    def saved(self, fields: Fields, worker: int) -> Pair:
        pair = Pair.of(fields)
        self.save(pair, worker)
        return pair

    def save(self, pair: Pair, worker: int) -> None:
        store, known_by = self.stores[worker], self.known_by(worker)
        self.model.seen["an empty string"] += "" in pair.twin.fields.values()
        self.compare(
            lambda: store.save_token(pair.token),
            lambda: self.model.save_token(pair.twin, known_by, pair.token.get_id()),
        )
        assert read(pair.token) == pair.twin.fields

    def find(self, pair: Pair, worker: int) -> None:
        found = self.stores[worker].find_token(pair.token)
        is_found = self.model.find_token(pair.twin, self.known_by(worker))
        assert found is (pair.token if is_found else None)
        assert read(pair.token) == pair.twin.fields

    def loaded(self, token: OAuthToken, twin: Twin) -> Pair:
        assert read(token) == twin.fields
        return Pair(token, twin)

    def compare(self, of_store: Callable[[], None], of_model: Callable[[], None]) -> None:
        """Both do it, or both refuse it for the same reason."""
        message, reason = refusal(of_store), refusal(of_model)
        assert (message is None) == (reason is None), f"store: {message}; model: {reason}"
        assert str(reason or "") in str(message)

    # What holds after each of them

    @invariant()
    def all_rows_are_the_models(self) -> None:
        store = self.stores[self.turn % 2]
        self.turn += 1
        tokens = store.iter_tokens() if self.turn % 3 else store.get_tokens()
        rows = [{"id": id, **row} for id, row in self.model.rows.items()]
        assert [has(read(token)) for token in tokens] == rows
        for name in UNIQUE:
            values = [row[name] for row in rows if name in row]
            assert len(set(values)) == len(values)
            self.model.seen.update(sorts_of(values))


FOLDS = {
    "case twins": str.casefold,
    "twins but for a space": str.rstrip,
    "twins in two encodings": functools.partial(unicodedata.normalize, "NFC"),
}


def sorts_of(values: list[str]) -> set[str]:
    """Which sorts of values there are in a column that has to tell them apart."""
    return {sort for sort, fold in FOLDS.items() if len({*map(fold, values)}) < len(values)}


def refusal(call: Callable[[], object]) -> str | None:
    """Why the call was refused; None where it was not."""
    try:
        call()
    except (SDKException, Refused) as error:
        return str(error)
    return None


SORTS = {
    *FOLDS,
    *("an empty string", "find past a foreign row", "rename", "merge of two", "merge of more"),
    *("delete", "has been deleted", "nothing to store", "needs an id"),
}
"""What the examples have to include, or they would prove little."""


@pytest.fixture
def stores(database: Database) -> Iterator[list[SQLAlchemyTokenStore]]:
    """Two workers' stores on one database; one that is in memory has a single store."""
    with ExitStack() as stack:
        make = functools.partial(SQLAlchemyTokenStore, database.url, refresh_wait=0)
        first = stack.enter_context(make(create_schema=True))
        is_single = database.name == "sqlite-memory"
        yield [first, first if is_single else stack.enter_context(make(create_schema=False))]


def test_the_store_does_what_a_plain_dict_does(
    stores: list[SQLAlchemyTokenStore], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "zoho_token_orm")  # it would log each refusal
    seen: Counter[str] = Counter()
    run_state_machine_as_test(lambda: Machine(stores, seen), settings=SETTINGS)
    assert SORTS - (+seen).keys() == set()
