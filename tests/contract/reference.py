"""The contract in the fewest words: a store in a list that keeps every promise."""

from __future__ import annotations

import secrets
import threading
import weakref
from collections.abc import Iterator
from typing import Any

from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store.token_store import TokenStore
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

UNIQUE = ("id", "user_name", "grant_token", "refresh_token")
TOKENS = ("access_token", "grant_token", "refresh_token")
PLAIN = ("id", "client_id", "client_secret", *TOKENS, "redirect_url", "api_domain", "expires_in")
LONGEST = 2048

Row = dict[str, Any]


class ReferenceStore(TokenStore):
    """One list of rows, one lock, and the weakly held tokens that came from here."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.lock = threading.RLock()
        self.known: weakref.WeakSet[OAuthToken] = weakref.WeakSet()

    def find_token(self, token: OAuthToken) -> OAuthToken | None:
        with self.lock:
            fields = self.read(token)
            answers = (row for row in self.searched(fields) if self.is_answer(row, fields))
            row = next(answers, None)
            return None if row is None else self.filled(token, row)

    def find_token_by_id(self, id: str | None) -> OAuthToken | None:
        with self.lock:
            return next((self.made(row) for row in self.rows if row["id"] == id), None)

    def save_token(self, token: OAuthToken) -> None:
        with self.lock:
            fields = self.checked(self.read(token))
            if token in self.known and self.was_deleted(fields):
                raise self.error("the token was deleted")
            kept, *others = self.named(fields) or [self.inserted(fields)]
            self.drop(others, fields)
            fields["id"] = self.id_after(token, kept, fields)
            self.update(kept, fields)
            token.set_id(kept["id"])
            self.known.add(token)

    def delete_token(self, id: str | None) -> None:
        if not id:
            raise self.error("an id is needed")
        with self.lock:
            self.rows = [row for row in self.rows if row["id"] != id]

    def get_tokens(self) -> list[OAuthToken]:
        with self.lock:
            return [self.made(row) for row in self.rows]

    def delete_tokens(self) -> None:
        with self.lock:
            self.rows = []

    def read(self, token: OAuthToken) -> Row:
        """What the token has, without what is empty."""
        if not isinstance(token, OAuthToken):
            raise self.error("this is no OAuthToken")
        signature = token.get_user_signature()
        fields = {name: getattr(token, f"get_{name}")() for name in PLAIN}
        fields["user_name"] = None if signature is None else signature.get_name()
        return {name: value for name, value in fields.items() if self.has(value)}

    def has(self, value: str | None) -> bool:
        return bool(value)

    def identities(self, fields: Row) -> Iterator[str]:
        """The fields by which the token names rows, in order."""
        yield "id"
        yield "user_name"
        if "client_id" not in fields and "client_secret" not in fields:
            yield "access_token"
        yield "grant_token"
        yield "refresh_token"

    def named(self, fields: Row) -> list[Row]:
        """The rows that the token names, each once, in the order of its identities."""
        names = [name for name in self.identities(fields) if name in fields]
        rows = [row for name in names for row in self.rows if self.same(name, row, fields)]
        return list({id(row): row for row in rows}.values())

    def searched(self, fields: Row) -> list[Row]:
        """The rows that may be the answer to a look-up."""
        return self.named(fields)

    def same(self, name: str, row: Row, fields: Row) -> bool:
        return name in row and row[name] == fields[name]

    def is_answer(self, row: Row, fields: Row) -> bool:
        """Whether the row is of the token's own user and client."""
        names = [name for name in ("user_name", "client_id") if name in row and name in fields]
        return all(row[name] == fields[name] for name in names)

    def filled(self, token: OAuthToken, row: Row) -> OAuthToken:
        """The token with what it lacked."""
        has = self.read(token)
        belongs = "access_token" not in has or has["access_token"] == row.get("access_token")
        for name, value in row.items():
            if name not in has and (name != "expires_in" or belongs):
                self.set_field(token, name, value)
        self.known.add(token)
        return token

    def set_field(self, token: OAuthToken, name: str, value: str) -> None:
        if name == "user_name":
            token.set_user_signature(UserSignature(value))
        else:
            getattr(token, f"set_{name}")(value)

    def made(self, row: Row) -> OAuthToken:
        return self.filled(OAuthToken(id=row["id"]), row)

    def checked(self, fields: Row) -> Row:
        """The fields, which must be such as every database can hold."""
        for name, value in fields.items():
            if not self.is_storable(name, value):
                raise self.error(f"{name} cannot be stored")
        return fields

    def is_storable(self, name: str, value: str) -> bool:
        if name == "expires_in":
            return value.isascii() and value.isdecimal()
        surrogate = any("\ud800" <= character <= "\udfff" for character in value)
        return "\0" not in value and not surrogate and len(value) <= LONGEST

    def was_deleted(self, fields: Row) -> bool:
        """Whether no row holds the authorization of a token that came from here."""
        names = [name for name in ("id", "grant_token", "refresh_token") if name in fields]
        return not any(self.same(name, row, fields) for name in names for row in self.rows)

    def inserted(self, fields: Row) -> Row:
        if not any(name in fields for name in TOKENS):
            raise self.error("there is nothing to store")
        self.rows.append({"id": fields.get("id") or self.new_id()})
        return self.rows[-1]

    def new_id(self) -> str:
        return str(secrets.randbits(62))

    def drop(self, others: list[Row], fields: Row) -> None:
        """The rows that would hold a unique value of the token a second time go."""
        gone = [
            id(row)
            for row in others
            if any(self.same(name, row, fields) for name in UNIQUE if name in fields)
        ]
        self.rows = [row for row in self.rows if id(row) not in gone]

    def id_after(self, token: OAuthToken, kept: Row, fields: Row) -> str:
        """The row's id; the caller's own, where the token's id did not come from here."""
        return kept["id"] if token in self.known else fields.get("id", kept["id"])

    def update(self, row: Row, fields: Row) -> None:
        if "access_token" in fields and not self.same("access_token", row, fields):
            row.pop("expires_in", None)
        row.update(fields)

    def error(self, message: str) -> SDKException:
        return SDKException("TOKEN_STORE", message)
