"""What the columns make of any text: it comes back, stays apart from others, and can be indexed."""

from __future__ import annotations

import copy
import json
import pickle

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite

from zoho_token_orm.models import Secret, TokenString

COLUMN = TokenString(2048)
DIALECT = sqlite.dialect()
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
AWKWARD = st.one_of(
    TEXTS, TEXTS.map("UTF-8''".__add__), st.text(st.sampled_from(" %20UTF-8'aé\n\x7f"))
)


@given(AWKWARD)
def test_any_text_comes_back_from_a_token_column(text):
    stored = COLUMN.process_bind_param(text, DIALECT)
    assert COLUMN.process_result_value(stored, DIALECT) == text


@given(AWKWARD, AWKWARD)
def test_two_texts_are_never_stored_alike(one, other):
    assert (COLUMN.stored(one) == COLUMN.stored(other)) == (one == other)


@given(AWKWARD.filter(bool))
def test_what_is_stored_is_printable_and_ends_in_no_space(text):
    """So that one byte holds a character, and a comparison that pads with spaces is exact."""
    stored = COLUMN.stored(text)
    assert stored.isascii()
    assert stored.isprintable()
    assert not stored.endswith(" ")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126)))
def test_what_tokens_are_made_of_is_stored_as_it_is(text):
    assert text.startswith("UTF-8''") or COLUMN.stored(text) == text


def test_a_secret_is_a_string_in_everything_but_its_repr():
    secret = Secret("1000.secret")
    assert secret == "1000.secret"
    assert f"{secret}" == str(secret) == json.loads(json.dumps(secret)) == "1000.secret"
    for copied in (copy.deepcopy(secret), pickle.loads(pickle.dumps(secret))):
        assert (copied, repr(copied)) == ("1000.secret", "'***'")
