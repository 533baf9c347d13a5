"""TLS to the database: each option of docs/tls.md verifies what the page says."""

from __future__ import annotations

import gc
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from sqlalchemy import Engine, event, make_url
from zohocrmsdk.src.com.zoho.crm.api.exception.sdk_exception import SDKException

from tests.databases import SERVERS
from tests.support import CHECKOUT, granted, values
from tests.tls_servers import (
    NAME,
    WRONG_NAME,
    Authority,
    Stripping,
    TLSServer,
    mariadb,
    tls_server,
)
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.database import bounds

PAGE = (CHECKOUT / "docs" / "tls.md").read_text()
EXAMPLES = {
    url.drivername: url for url in map(make_url, re.findall(r"^\w+://\S+$", PAGE, re.MULTILINE))
}
ROW = re.compile(
    r"^\| (PostgreSQL|MySQL, MariaDB)(?: `(.+)`|, none of these) \| (.+) \|$", re.MULTILINE
)
ROWS = [(names, options, cells.split(" | ")) for names, options, cells in ROW.findall(PAGE)]

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
"""PyMySQL leaves the socket of a server that it refuses to the garbage collector."""


@pytest.fixture(scope="module", params=SERVERS)
def tls(request, tmp_path_factory) -> Iterator[TLSServer]:
    with tls_server(request.param, tmp_path_factory.mktemp("authorities")) as running:
        yield running


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


def example(tls: TLSServer, ca: Path, **changes: str) -> str:
    """The URL of the page for that server, leading to the running one."""
    return url_of(tls, dict(EXAMPLES[tls.name].query), ca, **changes)


def url_of(tls: TLSServer, options: dict, ca: Path, **changes: str | int) -> str:
    files = dict.fromkeys(options.keys() & {"sslrootcert", "ssl_ca"}, str(ca))
    scheme = EXAMPLES[tls.name].drivername
    url = tls.url.set(drivername=scheme, query={**options, **files}, **changes)
    return url.render_as_string(hide_password=False)


def cipher(store: SQLAlchemyTokenStore) -> str | None:
    """What the server encrypts the store's connection with."""
    with store.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            asked = "SELECT cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            return connection.exec_driver_sql(asked).scalar()
        return connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_cipher'").one()[1]


def is_refused(url: str) -> bool:
    """Whether the driver does not go on to that server."""
    try:
        SQLAlchemyTokenStore(url, create_schema=True).close()
    except SDKException as error:
        return bool(re.search("certificate|SSL", str(error)))
    return False


@contextmanager
def attempts() -> Iterator[list[object]]:
    """The connections that anybody opens meanwhile, or tries to."""
    seen: list[object] = []

    def note(dialect, record, args, options):
        seen.append(dialect)

    event.listen(Engine, "do_connect", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "do_connect", note)


def test_the_page_has_an_example_for_each_server():
    assert EXAMPLES.keys() == SERVERS.keys()


def test_the_example_saves_and_finds_over_tls(tls):
    token = granted("alice")
    with SQLAlchemyTokenStore(example(tls, tls.ca), create_schema=True) as store:
        store.save_token(token)
        assert values(store.find_token_by_id(token.get_id())) == values(token)
        assert cipher(store)
        store.delete_tokens()


@pytest.mark.parametrize("wrong", ["authority", "host", "file"])
def test_the_example_refuses_another_server_at_once_and_shows_no_password(tls, wrong):
    ca = {"authority": tls.other_ca, "host": tls.ca, "file": tls.ca.with_name("missing.pem")}[wrong]
    host = WRONG_NAME if wrong == "host" else NAME
    with attempts() as seen, pytest.raises(SDKException) as caught:
        SQLAlchemyTokenStore(example(tls, ca, host=host)).close()
    assert len(seen) == 1
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert re.search("certificate|FileNotFoundError", shown)
    assert tls.url.password not in shown


def test_a_server_that_is_another_one_all_of_a_sudden_is_refused(tls, monkeypatch, caplog):
    """A look-up is over at once; a save waits for the right one to come back, for a time."""
    monkeypatch.setattr(bounds, "SAVE_PATIENCE", 0.1)
    token = granted("alice")
    with SQLAlchemyTokenStore(example(tls, tls.ca), create_schema=True) as store:
        store.save_token(token)
        store.engine.dispose()
        with another_authority(tls):
            with attempts() as seen, pytest.raises(SDKException, match=r"find the token.*certif"):
                store.find_token_by_id(token.get_id())
            assert len(seen) == 1
            with pytest.raises(SDKException, match=r"save the token.*tried \d+ times.*certif"):
                store.save_token(token)
        store.delete_tokens()
    assert tls.url.password not in caplog.text
    assert "1000." not in caplog.text


@contextmanager
def another_authority(tls: TLSServer) -> Iterator[None]:
    """New connections trust the other authority meanwhile, and so not the server."""

    def trust_it(dialect, record, args, options):
        if tls.name == "postgresql":
            options["sslrootcert"] = str(tls.other_ca)
        else:
            options["ssl"] = {"ca": str(tls.other_ca)}

    event.listen(Engine, "do_connect", trust_it)  # of the class: called before the store's own
    try:
        yield
    finally:
        event.remove(Engine, "do_connect", trust_it)


def test_the_example_refuses_a_server_that_offers_no_tls(tls):
    with Stripping(tls) as way:
        assert is_refused(example(tls, tls.ca, port=way.url.port))


def test_every_option_verifies_what_the_page_says(tls):
    of_server = [row for row in ROWS if (tls.name == "postgresql") == (row[0] == "PostgreSQL")]
    assert len(of_server) >= 3
    for _, given, (encrypted, authority, host) in of_server:
        options = dict(parse_qsl(given))
        assert not is_refused(url_of(tls, options, tls.ca)), given
        assert is_refused(url_of(tls, options, tls.other_ca)) == (authority == "yes"), given
        assert is_refused(url_of(tls, options, tls.ca, host=WRONG_NAME)) == (host == "yes"), given
        with Stripping(tls) as way:
            stripped = url_of(tls, options, tls.ca, port=way.url.port)
            assert is_refused(stripped) == (encrypted == "yes"), given


def test_without_options_a_connection_is_encrypted_if_the_server_offers_it(tls):
    with SQLAlchemyTokenStore(url_of(tls, {}, tls.ca), create_schema=True) as store:
        assert cipher(store)
    with Stripping(tls) as way, SQLAlchemyTokenStore(way.url, create_schema=True) as store:
        assert not cipher(store)


@pytest.mark.parametrize("option", ["ssl_verify_identity", "ssl_verify_cert"])
@pytest.mark.parametrize("driver", ["mysql", "mariadb+pymysql"])
def test_an_option_that_would_have_the_authority_forgotten_is_refused(driver, option):
    """PyMySQL would trust the system's authorities then, and for any host."""
    url = f"{driver}://user:password@127.0.0.1:1/crm?ssl_ca=ca.pem&{option}=true"
    with pytest.raises(ValueError, match=f"leave {option} out of the database URL"):
        SQLAlchemyTokenStore(url)


def test_a_missing_server_is_a_skip_unless_it_is_required(monkeypatch):
    monkeypatch.setattr("tests.tls_servers.shutil.which", lambda *args, **options: None)
    monkeypatch.setenv("ZOHO_TOKEN_ORM_REQUIRE", "")
    with pytest.raises(pytest.skip.Exception, match=r"no mariadb with TLS: .* wants mariadbd"):
        mariadb(Authority()).__enter__()
    monkeypatch.setenv("ZOHO_TOKEN_ORM_REQUIRE", "mariadb")
    with pytest.raises(pytest.fail.Exception, match="ZOHO_TOKEN_ORM_REQUIRE names it"):
        mariadb(Authority()).__enter__()
