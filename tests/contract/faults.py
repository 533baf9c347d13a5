"""Stores with one fault each, and the promises of the contract that each fault breaks."""

from __future__ import annotations

import copy
import logging
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress

from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from tests.contract.reference import ReferenceStore, Row
from zoho_token_orm.testing.contract import THREADS

FAULTS: dict[type[ReferenceStore], set[str]] = {}


def breaks(*promises: str) -> Callable[[type[ReferenceStore]], type[ReferenceStore]]:
    """A faulty store that breaks these promises, and no other."""

    def add(store: type[ReferenceStore]) -> type[ReferenceStore]:
        FAULTS[store] = {f"test_{promise}" for promise in promises}
        return store

    return add


@breaks(
    "access_token_beside_a_client_names_nothing",
    "token_that_names_nothing_finds_nothing",
)
class TakesAnyRowForNothing(ReferenceStore):
    def named(self, fields: Row) -> list[Row]:
        return super().named(fields) if set(self.identities(fields)) & fields.keys() else self.rows


class FindsNot(ReferenceStore):
    """A store that finds nothing by one of the identities."""

    missing = "id"

    def searched(self, fields: Row) -> list[Row]:
        return self.named({name: fields[name] for name in fields if name != self.missing})


@breaks("id_alone_finds_its_row", "id_goes_before_user_before_tokens")
class FindsNoIds(FindsNot):
    missing = "id"


@breaks(
    "accents_count",
    "case_counts",
    "every_script",
    "id_goes_before_user_before_tokens",
    "identity_without_an_answer_leads_to_the_next",
    "quotes_and_sql",
    "separators_and_white_space",
    "trailing_spaces_count",
    "user_alone_finds_its_row",
    "what_the_token_has_is_not_overwritten",
)
class FindsNoUsers(FindsNot):
    missing = "user_name"


@breaks(
    "accents_count",
    "access_token_alone_finds_its_row",
    "access_token_goes_before_grant_before_refresh_token",
    "case_counts",
    "expiry_is_filled_in_beside_the_same_access_token",
    "long_tokens_fit",
    "trailing_spaces_count",
)
class FindsNoAccessTokens(FindsNot):
    missing = "access_token"


@breaks(
    "accents_count",
    "access_token_goes_before_grant_before_refresh_token",
    "case_counts",
    "identity_without_an_answer_leads_to_the_next",
    "long_tokens_fit",
    "spent_grant_token_finds_its_row",
    "trailing_spaces_count",
)
class FindsNoGrantTokens(FindsNot):
    missing = "grant_token"


@breaks(
    "accents_count",
    "case_counts",
    "empty_string_counts_as_lacking",
    "expiry_comes_only_with_its_access_token",
    "long_tokens_fit",
    "refresh_token_finds_its_row",
    "same_object_is_returned",
    "trailing_spaces_count",
    "what_the_token_lacks_is_filled_in",
)
class FindsNoRefreshTokens(FindsNot):
    missing = "refresh_token"


@breaks(
    "access_token_goes_before_grant_before_refresh_token",
    "id_goes_before_user_before_tokens",
)
class AsksInTheOppositeOrder(ReferenceStore):
    def searched(self, fields: Row) -> list[Row]:
        return super().searched(fields)[::-1]


@breaks(
    "ids_and_expiries_are_strings",
    "own_id_may_be_any_text",
    "saved_token_is_there_for_every_store",
    "token_of_an_id_is_a_new_object",
    "token_of_an_id_is_complete",
    "user_can_be_renamed",
)
class ReadsNumbers(ReferenceStore):
    def find_token_by_id(self, id: str | None) -> OAuthToken | None:
        token = super().find_token_by_id(id)
        if token is not None:
            token.set_expires_in(int(token.get_expires_in()))
        return token

    def has(self, value: object) -> bool:
        return bool(value)

    def is_storable(self, name: str, value: str) -> bool:
        return super().is_storable(name, str(value))


@breaks("oldest_comes_first")
class ListsTheLatestFirst(ReferenceStore):
    def get_tokens(self) -> list[OAuthToken]:
        return super().get_tokens()[::-1]


@breaks("empty_string_counts_as_lacking", "what_the_token_lacks_is_filled_in")
class FillsNoRedirectUrl(ReferenceStore):
    def filled(self, token: OAuthToken, row: Row) -> OAuthToken:
        return super().filled(token, {name: row[name] for name in row if name != "redirect_url"})

    def made(self, row: Row) -> OAuthToken:
        return super().filled(OAuthToken(id=row["id"]), row)


@breaks("restart_with_a_spent_grant_token_is_one_row", "three_rows_become_one")
class InsertsForASpentGrant(ReferenceStore):
    def named(self, fields: Row) -> list[Row]:
        return super().named({name: fields[name] for name in fields if name != "grant_token"})

    def searched(self, fields: Row) -> list[Row]:
        return super().named(fields)


@breaks(
    "fields_that_the_token_lacks_are_left_alone",
    "id_stays_across_saves",
    "one_new_user_saved_at_once_is_one_row",
    "restart_with_a_spent_grant_token_is_one_row",
    "rows_that_become_one_at_once",
    "three_rows_become_one",
    "two_rows_of_one_user_become_one",
    "unchanged_token_saved_again_is_one_row",
)
class GivesANewTokenANewId(ReferenceStore):
    def id_after(self, token: OAuthToken, kept: Row, fields: Row) -> str:
        known = token in self.known or "id" in fields
        return super().id_after(token, kept, fields) if known else self.new_id()


@breaks("row_of_the_id_stays_of_two")
class JoinsTheUsersRowOnly(ReferenceStore):
    def named(self, fields: Row) -> list[Row]:
        rows = super().named(fields)
        return [row for row in rows[:1] if "user_name" not in row] or rows


@breaks("own_id_may_be_any_text")
class KeepsIdsAsNumbers(ReferenceStore):
    def same(self, name: str, row: Row, fields: Row) -> bool:
        values = [each.get(name, "") for each in (row, fields)]
        return values[0].lstrip("0") == values[1].lstrip("0")


@breaks("saved_token_is_there_for_every_store")
class ReadsFromACache(ReferenceStore):
    def __init__(self) -> None:
        super().__init__()
        self.cache: list[Row] = []

    def find_token_by_id(self, id: str | None) -> OAuthToken | None:
        seen = [row["id"] for row in self.cache]
        self.cache += [dict(row) for row in self.rows if row["id"] not in seen]
        return next((self.made(row) for row in self.cache if row["id"] == id), None)


@breaks("access_token_beside_a_client_names_nothing")
class FindsAccessTokensOfClients(ReferenceStore):
    def identities(self, fields: Row) -> Iterator[str]:
        yield from ("id", "user_name", "access_token", "grant_token", "refresh_token")


@breaks("identity_without_an_answer_leads_to_the_next")
class AsksTheFirstIdentityOnly(ReferenceStore):
    def find_token(self, token: OAuthToken) -> OAuthToken | None:
        fields = self.read(token)
        names = [name for name in self.identities(fields) if name in fields][:1]
        rows = [row for row in self.rows if names and self.same(names[0], row, fields)]
        return self.filled(token, rows[0]) if rows and self.is_answer(rows[0], fields) else None


@breaks("identity_without_an_answer_leads_to_the_next", "row_of_another_user_is_no_answer")
class AnswersWithRowsOfOthers(ReferenceStore):
    def is_answer(self, row: Row, fields: Row) -> bool:
        return "client_id" not in fields or row["client_id"] == fields["client_id"]


@breaks("row_of_another_client_is_no_answer")
class AnswersWithRowsOfOtherClients(ReferenceStore):
    def is_answer(self, row: Row, fields: Row) -> bool:
        return super().is_answer(row, {**fields, "client_id": row["client_id"]})


@breaks("unknown_token_is_left_as_it_is")
class FillsWhatItDoesNotFind(ReferenceStore):
    def find_token(self, token: OAuthToken) -> OAuthToken | None:
        found = super().find_token(token)
        if found is None:
            token.set_expires_in("0")
        return found


@breaks("same_object_is_returned")
class ReturnsACopy(ReferenceStore):
    def find_token(self, token: OAuthToken) -> OAuthToken | None:
        return copy.copy(super().find_token(token))


@breaks("expiry_comes_only_with_its_access_token", "what_the_token_has_is_not_overwritten")
class Overwrites(ReferenceStore):
    def filled(self, token: OAuthToken, row: Row) -> OAuthToken:
        for name, value in row.items():
            self.set_field(token, name, value)
        return super().filled(token, row)


@breaks(
    "empty_string_counts_as_lacking",
    "empty_string_is_not_stored_over_a_value",
    "empty_string_is_stored_as_none",
)
class TakesEmptyForAValue(ReferenceStore):
    def has(self, value: str | None) -> bool:
        return value is not None


@breaks("expiry_comes_only_with_its_access_token")
class FillsTheExpiryAlways(ReferenceStore):
    def filled(self, token: OAuthToken, row: Row) -> OAuthToken:
        expiry = token.get_expires_in() or row.get("expires_in")
        super().filled(token, row).set_expires_in(expiry)
        return token


@breaks("expiry_is_filled_in_beside_the_same_access_token")
class FillsTheExpiryOnlyWithTheAccessToken(ReferenceStore):
    def filled(self, token: OAuthToken, row: Row) -> OAuthToken:
        expiry = token.get_expires_in() if token.get_access_token() else row.get("expires_in")
        super().filled(token, row).set_expires_in(expiry)
        return token


@breaks("saved_token_is_there_for_every_store", "token_of_an_id_is_a_new_object")
class GivesOneObjectToAll(ReferenceStore):
    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str | None, OAuthToken | None] = {}

    def find_token_by_id(self, id: str | None) -> OAuthToken | None:
        return self.objects.setdefault(id, super().find_token_by_id(id))


@breaks(
    "one_token_refreshed_at_once_is_one_whole_row",
    "outdated_id_is_replaced_by_the_rows",
    "own_id_may_be_any_text",
    "saved_token_is_there_for_every_store",
    "token_of_an_id_is_a_new_object",
    "token_of_an_id_is_complete",
)
class LeavesFieldsOut(ReferenceStore):
    def find_token_by_id(self, id: str | None) -> OAuthToken | None:
        token = super().find_token_by_id(id)
        if token is not None:
            token.set_grant_token(None)
        return token


@breaks("listed_tokens_are_whole", "token_of_an_id_is_whole")
class MakesBareObjects(ReferenceStore):
    def made(self, row: Row) -> OAuthToken:
        made = super().made(row)
        del made.__dict__["_OAuthToken__find_user"]
        return made


@breaks("unknown_id_finds_none")
class RaisesForUnknownIds(ReferenceStore):
    def find_token_by_id(self, id: str | None) -> OAuthToken | None:
        found = super().find_token_by_id(id)
        if found is None:
            raise self.error("there is no such row")
        return found


@breaks("first_save_gives_an_id", "ids_cannot_be_guessed")
class MakesLettersForIds(ReferenceStore):
    def new_id(self) -> str:
        return f"id{super().new_id()}"


@breaks(
    "deleted_token_does_not_replace_a_new_login",
    "ids_cannot_be_guessed",
    "two_users_never_get_one_id",
)
class CountsRowsForIds(ReferenceStore):
    def new_id(self) -> str:
        return str(len(self.rows) + 1)


@breaks(
    "empty_string_is_not_stored_over_a_value",
    "same_access_token_keeps_its_expiry",
    "unchanged_token_saved_again_is_one_row",
)
class InsertsWhatDidNotChange(ReferenceStore):
    def save_token(self, token: OAuthToken) -> None:
        fields = self.read(token)
        unchanged = [row for row in self.named(fields)[:1] if {**row, **fields} == row]
        super().save_token(token)
        self.rows += [dict(row, id=self.new_id()) for row in unchanged]


@breaks(
    "fields_of_the_token_win",
    "one_user_logging_in_at_once_is_one_row",
    "rows_that_become_one_at_once",
    "two_rows_of_one_user_become_one",
)
class LetsTheRowsUrlWin(ReferenceStore):
    def update(self, row: Row, fields: Row) -> None:
        super().update(
            row, {**fields, **{name: row[name] for name in row if name == "redirect_url"}}
        )


@breaks(
    "empty_string_is_not_stored_over_a_value",
    "fields_that_the_token_lacks_are_left_alone",
    "same_access_token_keeps_its_expiry",
)
class ReplacesTheRow(ReferenceStore):
    def update(self, row: Row, fields: Row) -> None:
        row.clear()
        row.update(fields)


@breaks(
    "empty_string_is_not_stored_over_a_value",
    "empty_string_is_stored_as_none",
    "fields_that_the_token_lacks_are_left_alone",
    "same_access_token_keeps_its_expiry",
)
class StoresEmptyStrings(ReferenceStore):
    def update(self, row: Row, fields: Row) -> None:
        super().update(row, {"grant_token": "", "redirect_url": "", **fields})


@breaks(
    "fields_of_the_token_win",
    "fields_that_the_token_lacks_are_left_alone",
    "one_new_user_saved_at_once_is_one_row",
    "one_token_refreshed_at_once_is_one_whole_row",
    "one_user_logging_in_at_once_is_one_row",
    "outdated_id_is_replaced_by_the_rows",
    "refresh_changes_access_token_and_expiry_only",
    "rows_that_become_one_at_once",
    "saved_token_is_there_for_every_store",
    "two_rows_of_one_user_become_one",
)
class ClearsTheGrantAtARefresh(ReferenceStore):
    def update(self, row: Row, fields: Row) -> None:
        refreshed = fields.get("access_token") != row.get(
            "access_token", fields.get("access_token")
        )
        super().update(row, fields)
        if refreshed:
            row.pop("grant_token", None)


@breaks("new_access_token_does_not_keep_the_old_expiry")
class KeepsTheOldExpiry(ReferenceStore):
    def update(self, row: Row, fields: Row) -> None:
        row.update(fields)


@breaks(
    "empty_string_is_not_stored_over_a_value",
    "fields_that_the_token_lacks_are_left_alone",
    "same_access_token_keeps_its_expiry",
)
class DropsTheExpiry(ReferenceStore):
    def update(self, row: Row, fields: Row) -> None:
        row.pop("expires_in", None)
        row.update(fields)


@breaks(
    "row_of_the_id_stays_of_two",
    "rows_that_become_one_at_once",
    "three_rows_become_one",
    "two_rows_of_one_user_become_one",
)
class LeavesTwoRows(ReferenceStore):
    def drop(self, others: list[Row], fields: Row) -> None:
        pass


@breaks("three_rows_become_one")
class DropsOneRowOnly(ReferenceStore):
    def drop(self, others: list[Row], fields: Row) -> None:
        super().drop(others[:1], fields)


@breaks(
    "row_of_the_id_stays_of_two",
    "rows_that_become_one_at_once",
    "three_rows_become_one",
    "two_rows_of_one_user_become_one",
)
class KeepsTheLastOfSeveralRows(ReferenceStore):
    def save_token(self, token: OAuthToken) -> None:
        if len(self.named(self.read(token))) > 1:
            self.rows.remove(self.named(self.read(token))[0])
        super().save_token(token)


@breaks(
    "accents_count",
    "case_counts",
    "outdated_id_is_replaced_by_the_rows",
    "own_id_is_kept_for_a_new_row",
    "own_id_may_be_any_text",
    "own_id_takes_over_the_row",
    "trailing_spaces_count",
)
class RefusesOwnIds(ReferenceStore):
    def id_after(self, token: OAuthToken, kept: Row, fields: Row) -> str:
        return kept["id"] if kept["id"].isdecimal() else self.new_id()


@breaks("outdated_id_is_replaced_by_the_rows", "own_id_takes_over_the_row")
class LetsNoOwnIdTakeOver(ReferenceStore):
    def id_after(self, token: OAuthToken, kept: Row, fields: Row) -> str:
        return kept["id"]


@breaks("outdated_id_is_replaced_by_the_rows")
class LetsOutdatedIdsTakeOver(ReferenceStore):
    def id_after(self, token: OAuthToken, kept: Row, fields: Row) -> str:
        return fields.get("id", kept["id"])


@breaks("fields_of_the_token_win", "user_can_be_renamed")
class KeepsTheFirstName(ReferenceStore):
    def update(self, row: Row, fields: Row) -> None:
        name = row.get("user_name") or fields.get("user_name")
        super().update(row, {**fields, "user_name": name} if name else fields)


@breaks("nothing_to_store_is_refused")
class StoresNothings(ReferenceStore):
    def inserted(self, fields: Row) -> Row:
        return super().inserted({"access_token": "", **fields})


@breaks(
    "only_the_row_of_the_id_goes",
    "own_id_may_be_any_text",
    "sql_in_a_look_up_is_only_text",
    "unknown_id_is_fine",
)
class DeletesOneMore(ReferenceStore):
    def delete_token(self, id: str | None) -> None:
        super().delete_token(id)
        self.rows = self.rows[1:]


@breaks("unknown_id_is_fine")
class RaisesForDeletedIds(ReferenceStore):
    def delete_token(self, id: str | None) -> None:
        if id not in [row["id"] for row in self.rows]:
            raise self.error("there is no such row")
        super().delete_token(id)


@breaks("missing_id_is_refused")
class DeletesNothingWithoutAWord(ReferenceStore):
    def delete_token(self, id: str | None) -> None:
        if id:
            super().delete_token(id)


@breaks(
    "deleted_row_is_found_no_more",
    "deleted_token_does_not_replace_a_new_login",
    "deleted_token_is_not_put_back",
    "log_out_during_refreshes_holds",
    "only_the_row_of_the_id_goes",
    "own_id_may_be_any_text",
    "unknown_id_is_fine",
)
class DeletesNothing(ReferenceStore):
    def delete_token(self, id: str | None) -> None:
        if not id:
            super().delete_token(id)


@breaks("delete_tokens_deletes_all")
class DeletesAllButOne(ReferenceStore):
    def delete_tokens(self) -> None:
        self.rows = self.rows[:1]


@breaks("deleted_token_does_not_replace_a_new_login")
class TakesANewLoginForTheOld(ReferenceStore):
    def was_deleted(self, fields: Row) -> bool:
        return super().was_deleted(fields) and not self.named(fields)


@breaks("deleted_token_does_not_replace_a_new_login", "user_can_log_in_again")
class LetsNobodyLogInAgain(ReferenceStore):
    def __init__(self) -> None:
        super().__init__()
        self.gone: set[str | None] = set()

    def delete_token(self, id: str | None) -> None:
        self.gone |= {row.get("user_name") for row in self.rows if row["id"] == id}
        super().delete_token(id)

    def inserted(self, fields: Row) -> Row:
        if fields.get("user_name") in self.gone:
            raise self.error("the user was deleted")
        return super().inserted(fields)


@breaks("oldest_comes_first")
class MovesChangedRowsToTheEnd(ReferenceStore):
    def update(self, row: Row, fields: Row) -> None:
        super().update(row, fields)
        self.rows = [each for each in self.rows if each is not row] + [row]


@breaks("a_hundred_users", "different_users_saved_at_once_are_all_there")
class ListsTenAtMost(ReferenceStore):
    def get_tokens(self) -> list[OAuthToken]:
        return super().get_tokens()[:10]


@breaks("own_id_may_be_any_text", "quotes_and_sql")
class EscapesQuotes(ReferenceStore):
    def checked(self, fields: Row) -> Row:
        return {name: value.replace("'", "''") for name, value in super().checked(fields).items()}


@breaks("accents_count", "every_script")
class NormalizesUnicode(ReferenceStore):
    def read(self, token: OAuthToken) -> Row:
        fields = super().read(token)
        return {name: unicodedata.normalize("NFC", value) for name, value in fields.items()}


@breaks("own_id_may_be_any_text", "separators_and_white_space", "trailing_spaces_count")
class Strips(ReferenceStore):
    def read(self, token: OAuthToken) -> Row:
        return {name: value.strip() for name, value in super().read(token).items()}


@breaks("sql_in_a_look_up_is_only_text")
class TakesWildCards(ReferenceStore):
    def same(self, name: str, row: Row, fields: Row) -> bool:
        return super().same(name, row, fields) or fields[name] == "%"


@breaks("case_counts")
class IgnoresCase(ReferenceStore):
    def same(self, name: str, row: Row, fields: Row) -> bool:
        return row.get(name, "").lower() == fields[name].lower()


@breaks("accents_count")
class IgnoresAccents(ReferenceStore):
    def same(self, name: str, row: Row, fields: Row) -> bool:
        plain = str.maketrans("", "", "\u0301")
        values = [unicodedata.normalize("NFD", each.get(name, "")) for each in (row, fields)]
        return values[0].translate(plain) == values[1].translate(plain)


@breaks("trailing_spaces_count")
class IgnoresTrailingSpaces(ReferenceStore):
    def same(self, name: str, row: Row, fields: Row) -> bool:
        return row.get(name, "").rstrip(" ") == fields[name].rstrip(" ")


@breaks("long_tokens_fit")
class Compares255Characters(ReferenceStore):
    def same(self, name: str, row: Row, fields: Row) -> bool:
        return row.get(name, "")[:255] == fields[name][:255]


@breaks("what_is_no_oauth_token_is_refused")
class TakesAnythingForAToken(ReferenceStore):
    def find_token(self, token: OAuthToken) -> OAuthToken | None:
        return super().find_token(token) if isinstance(token, OAuthToken) else token

    def save_token(self, token: OAuthToken) -> None:
        if isinstance(token, OAuthToken):
            super().save_token(token)


@breaks("nul_is_refused")
class StoresNuls(ReferenceStore):
    def is_storable(self, name: str, value: str) -> bool:
        return super().is_storable(name, value.replace("\0", ""))


@breaks("lone_surrogate_is_refused")
class StoresSurrogates(ReferenceStore):
    def is_storable(self, name: str, value: str) -> bool:
        return super().is_storable(name, value.replace("\udc80", ""))


@breaks("too_long_is_refused")
class CutsLongValues(ReferenceStore):
    def checked(self, fields: Row) -> Row:
        return super().checked({name: value[:2048] for name, value in fields.items()})


@breaks("expiry_that_is_no_number_is_refused")
class StoresAnyExpiry(ReferenceStore):
    def is_storable(self, name: str, value: str) -> bool:
        return name == "expires_in" or super().is_storable(name, value)


@breaks(
    "deleted_token_does_not_replace_a_new_login",
    "refused_change_leaves_the_row_as_it_was",
)
class StoresWhatItCanOfABadToken(ReferenceStore):
    def checked(self, fields: Row) -> Row:
        good = {name: value for name, value in fields.items() if self.is_storable(name, value)}
        for row in self.named(good)[:1]:
            self.update(row, {**good, "id": row["id"]})
        return super().checked(fields)


@breaks("errors_have_the_code_of_token_stores")
class RaisesWithoutACode(ReferenceStore):
    def error(self, message: str) -> SDKException:
        return SDKException("ERROR", message)


@breaks("errors_show_no_secret")
class ShowsTheTokenInErrors(ReferenceStore):
    def checked(self, fields: Row) -> Row:
        try:
            return super().checked(fields)
        except SDKException as error:
            raise self.error("not stored") from ValueError(f"{fields!r}: {error}")


@breaks("logs_show_no_secret")
class LogsTheToken(ReferenceStore):
    def update(self, row: Row, fields: Row) -> None:
        logging.getLogger(__name__).debug("saving %s", fields)
        super().update(row, fields)


class Meeting(ReferenceStore):
    """A store in which the threads of a test wait for one another at the worst moment."""

    def __init__(self) -> None:
        super().__init__()
        self.meeting = threading.Barrier(THREADS, timeout=2)
        self.deleting, self.deleted = threading.Event(), threading.Event()
        self.mine = threading.local()

    def meet(self) -> None:
        """Waits until all the threads are here, unless they are not all coming."""
        if threading.current_thread() is not threading.main_thread():
            with suppress(threading.BrokenBarrierError):
                self.meeting.wait()

    def meet_and_let_delete(self) -> None:
        """Waits until all the threads are here, and the one that deletes has done so."""
        self.meet()
        if self.deleting.is_set():
            self.deleted.wait(2)

    def delete_token(self, id: str | None) -> None:
        self.deleting.set()
        self.meet()
        super().delete_token(id)
        self.deleted.set()


@breaks("one_new_user_saved_at_once_is_one_row", "one_user_logging_in_at_once_is_one_row")
class LooksBeforeItLocks(Meeting):
    def save_token(self, token: OAuthToken) -> None:
        self.mine.rows = super().named(self.read(token))
        self.meet()
        super().save_token(token)
        del self.mine.rows

    def named(self, fields: Row) -> list[Row]:
        seen: list[Row] | None = getattr(self.mine, "rows", None)
        return super().named(fields) if seen is None else seen


@breaks(
    "different_users_saved_at_once_are_all_there",
    "log_out_during_refreshes_holds",
    "one_new_user_saved_at_once_is_one_row",
)
class WritesAllRowsAsItReadThem(Meeting):
    def save_token(self, token: OAuthToken) -> None:
        rows = [dict(row) for row in self.rows]
        self.meet_and_let_delete()
        with self.lock:
            self.rows = rows
            super().save_token(token)


@breaks(
    "deleted_token_does_not_replace_a_new_login",
    "deleted_token_is_not_put_back",
    "log_out_during_refreshes_holds",
)
class PutsDeletedTokensBack(Meeting):
    def save_token(self, token: OAuthToken) -> None:
        self.meet_and_let_delete()
        super().save_token(token)

    def was_deleted(self, fields: Row) -> bool:
        return False


@breaks("log_out_during_refreshes_holds")
class LooksForDeletionsBeforeItLocks(Meeting):
    def save_token(self, token: OAuthToken) -> None:
        self.mine.deleted = token in self.known and super().was_deleted(self.read(token))
        self.meet_and_let_delete()
        super().save_token(token)

    def was_deleted(self, fields: Row) -> bool:
        return bool(self.mine.deleted)


@breaks("nobody_sees_half_a_save")
class SavesInTwoSteps(ReferenceStore):
    def __init__(self) -> None:
        super().__init__()
        self.reader, self.half, self.looked = (threading.Event() for _ in range(3))
        self.alone = False

    def update(self, row: Row, fields: Row) -> None:
        if threading.current_thread() is not threading.main_thread() and not self.alone:
            row["access_token"] = fields["access_token"]
            self.half.set()
            self.alone = not self.looked.wait(1)
        super().update(row, fields)

    def find_token_by_id(self, id: str | None) -> OAuthToken | None:
        if threading.current_thread() is threading.main_thread():
            return super().find_token_by_id(id)
        self.half.wait(1)
        found = self.made(next(row for row in self.rows if row["id"] == id))
        self.looked.set()
        return found
