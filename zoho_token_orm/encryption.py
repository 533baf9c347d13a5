"""Secrets at rest: AES-SIV (RFC 5297) under the newest of several keys, or plain text."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import secrets
from collections.abc import Sequence

from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from zoho_token_orm.errors import token_store_error
from zoho_token_orm.models import SEALED, SECRET_LENGTH, OAuthTokenRow, TokenString

KEYS_VARIABLE = "ZOHO_TOKEN_ENCRYPTION_KEYS"
SECRETS = tuple(
    column.name
    for column in OAuthTokenRow.__table__.columns
    if isinstance(column.type, TokenString)
)
"""The columns that are encrypted: the client secret, the refresh, access and grant token."""
PLAIN = "plain"
"""Stands among the keys for plain text: first, new secrets are stored as they are; anywhere, those
that are stored so can be read and looked up."""

_KEY_BYTES = 64  # AES-256 in SIV mode: one half authenticates, the other encrypts
_ID_DIGITS = 8
_EXTRA = "zoho-token-orm[encryption]"
_SEALED = re.compile(rf"{re.escape(SEALED)}(?P<key>[0-9a-f]{{{_ID_DIGITS}}})\.(?P<text>.*)")


def generate_key() -> str:
    """A new key: 64 random bytes, as 86 characters that need no quoting."""
    return secrets.token_urlsafe(_KEY_BYTES)


class Key:
    """One key.

    Args:
        text: What ``generate_key`` has made.

    Attributes:
        prefix: What the values begin with that it has encrypted: the format, and the key's id,
            which tells nothing about the key.

    Raises:
        ValueError: It is no such text.
        SDKException: The package ``cryptography`` is missing, or too old.
    """

    def __init__(self, text: str) -> None:
        key = _decoded(text) or b""
        half = _KEY_BYTES // 2
        if len(key) != _KEY_BYTES or key[:half] == key[half:]:
            raise ValueError("not a key of zoho-token-orm generate-key")
        self.id = hashlib.sha256(b"zoho_token_orm key id" + key).hexdigest()[:_ID_DIGITS]
        self.prefix = f"{SEALED}{self.id}."
        self._cipher = _aes_siv(key)

    def __repr__(self) -> str:
        return f"Key(id={self.id!r})"

    def seal(self, column: str, value: str) -> str:
        """The value encrypted; the same each time, so that it can be looked up."""
        sealed = self._cipher.encrypt(value.encode(), _associated(column))
        return self.prefix + _encoded(sealed)

    def open(self, column: str, text: str) -> str | None:
        """The value of a text that follows this key's prefix; None where it has been changed."""
        from cryptography.exceptions import InvalidTag

        sealed = _decoded(text)
        # Another text for the same bytes would be another value to a look-up.
        if sealed is None or _encoded(sealed) != text:
            return None
        try:
            return str(self._cipher.decrypt(sealed, _associated(column)).decode())
        except (InvalidTag, ValueError):
            return None


class Cipher:
    """How the secrets of one store stand in the database.

    Args:
        keys: The keys, newest first; the first encrypts, each decrypts. ``PLAIN`` may be among
            them, and is without any. Where it is not, plain text is neither sent to the database
            nor taken from it.

    Raises:
        ValueError: One of them is no key, or is there twice.
        SDKException: The package ``cryptography`` is missing, or too old.
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        self._keys = _made(keys)
        self._by_id = {key.id: key for key in self._keys}
        self._is_plain = not self._keys or keys[0] == PLAIN
        self._reads_plain = not self._keys or PLAIN in keys
        self._given = list(keys)

    def __repr__(self) -> str:
        return f"Cipher({[*([PLAIN] if self._reads_plain else []), *self._by_id]})"

    @property
    def has_keys(self) -> bool:
        """Whether anything may be encrypted."""
        return bool(self._keys)

    @property
    def count(self) -> int:
        """In how many forms one secret may stand in the table."""
        return len(self._keys) + self._reads_plain

    def with_plain(self) -> Cipher:
        """The same keys, and plain text."""
        return Cipher([*self._given, *([] if self._reads_plain else [PLAIN])])

    @property
    def prefix(self) -> str | None:
        """What every secret begins with that is stored from now on; None for plain text."""
        return None if self._is_plain else self._keys[0].prefix

    def stored(self, column: str, value: str) -> str:
        """The form in which a secret is stored from now on.

        Raises:
            SDKException: It does not fit its column then.
        """
        text = TokenString.encoded(value) if self._is_plain else self._keys[0].seal(column, value)
        if len(text) > SECRET_LENGTH:
            raise token_store_error(
                f"{column} is too long to be encrypted: {len(value.encode())} bytes, at most "
                f"{_longest()} fit"
            )
        return text

    def forms(self, column: str, value: str) -> list[str]:
        """Every form in which the secret may stand in the table."""
        sealed = [key.seal(column, value) for key in self._keys]
        return [*sealed, TokenString.encoded(value)] if self._reads_plain else sealed

    def opened(self, row_id: str, column: str, text: str) -> str:
        """The secret of which this is a stored form.

        Args:
            row_id: The id of its row, for the message.
            column: Its column.
            text: What stands there.

        Raises:
            SDKException: No key opens it.
        """
        if self._reads_plain and not text.startswith(SEALED):
            return TokenString.loaded(text)
        match = _SEALED.fullmatch(text)
        key = self._by_id.get(match["key"]) if match else None
        value = key.open(column, match["text"]) if match and key else None
        if value is None:
            unknown = match["key"] if match and not key else None
            is_plain = not text.startswith(SEALED)
            raise _unreadable(f"{column} of the row with the id {row_id!r}", unknown, is_plain)
        return value


def keys_of(given: str | Sequence[str] | None, variable: str = KEYS_VARIABLE) -> list[str]:
    """The keys that somebody gives, newest first.

    Args:
        given: A key, several separated by commas, or a sequence of keys; None means the environment
            variable, and without it no keys.
        variable: The environment variable.

    Raises:
        ValueError: They are given and there is none, so that nothing is stored as plain text that
            was meant to be encrypted; or they are no text.
    """
    source = variable if given is None else "encryption_keys"
    if given is None:
        given = os.environ.get(variable)
        if given is None:
            return []
    texts = given.split(",") if isinstance(given, str) else given
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise ValueError("encryption_keys must be a string, or a sequence of strings")
    keys = [text.strip() for text in texts]
    if not any(keys):
        raise ValueError(
            f"{source} holds no key: make one with zoho-token-orm generate-key, "
            f"or leave {source} out to store plain text"
        )
    if not all(keys):
        raise ValueError(f"one of the keys in {source} is empty: is a variable not set?")
    return keys


def _made(keys: Sequence[str]) -> list[Key]:
    made: list[Key] = []
    for number, text in enumerate(keys, 1):
        if text == PLAIN:
            continue
        try:
            key = Key(text)
        except ValueError:
            raise ValueError(
                f"encryption key number {number} is no key: make one with "
                "zoho-token-orm generate-key, and separate several by commas"
            ) from None
        if key.id in [other.id for other in made]:
            raise ValueError(f"encryption key number {number} is there twice")
        made.append(key)
    return made


def _aes_siv(key: bytes):  # type: ignore[no-untyped-def]  # noqa: ANN202 - of an extra
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.ciphers.aead import AESSIV
    except ImportError as error:
        raise token_store_error(
            f"encryption needs the package cryptography: pip install '{_EXTRA}'"
        ) from error
    try:
        return AESSIV(key)
    except UnsupportedAlgorithm as error:
        raise token_store_error(
            f"encryption needs OpenSSL 3, which the wheels of cryptography have: "
            f"pip install --upgrade '{_EXTRA}'"
        ) from error


def _associated(column: str) -> list[bytes]:
    """What is authenticated with a value: a value of another column does not open."""
    return [SEALED.encode(), column.encode()]


def _unreadable(what: str, unknown_key: str | None, is_plain: bool) -> SDKException:
    if is_plain:
        return token_store_error(
            f"{what} is not encrypted: put {PLAIN!r} after the keys in encryption_keys or "
            f"{KEYS_VARIABLE} until zoho-token-orm rotate-keys has been run; if it has been, "
            "somebody has changed the row: restore it, or delete it and log the user in again"
        )
    if unknown_key is None:
        return token_store_error(
            f"{what} does not open with its key: somebody has changed it or moved it there; "
            "restore the row, or delete it and log the user in again"
        )
    return token_store_error(
        f"{what} is encrypted with the key {unknown_key}, which is not given: add it to "
        f"encryption_keys or {KEYS_VARIABLE}, or delete the row and log the user in again"
    )


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes | None:
    """The bytes; None where it is no base64url without padding."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None


def _longest() -> int:
    """How many bytes a secret may have, to fit its column when encrypted."""
    characters = SECRET_LENGTH - len(SEALED) - _ID_DIGITS - 1
    return characters * 3 // 4 - 16  # less the tag
