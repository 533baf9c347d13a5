"""Every command and every snippet of the documents runs, and what they say of each other is so."""

from __future__ import annotations

import re
import sys

import pytest
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store import FileStore
from zohocrmsdk.src.com.zoho.crm.api.dc import USDataCenter
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer

import tests.databases
from tests.databases import SERVERS, fresh_database
from tests.support import CHECKOUT, granted, run, statements, values
from zoho_token_orm import OAuthTokenRow, SQLAlchemyTokenStore, schema
from zoho_token_orm.cli import main
from zoho_token_orm.testing import ZohoSimulator

README = (CHECKOUT / "README.md").read_text()
TESTING = (CHECKOUT / "docs" / "testing.md").read_text()
OPERATIONS = (CHECKOUT / "docs" / "operations.md").read_text()
CI = (CHECKOUT / ".ci" / "run").read_text() + (CHECKOUT / ".ci" / "wheel").read_text()

RUN_BY_CI = {
    "make demo": "make demo",
    "make test": "make test",
    "pip install .": "pip install",
    "docker compose up -d --wait && make test": "docker compose up -d --wait",
}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def snippet(containing: str) -> str:
    (found,) = (block for block in blocks(README, "python") if containing in block)
    return found


@pytest.fixture(autouse=True)
def fresh_sdk(tmp_path, monkeypatch):
    """The SDK as in a new process, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZOHO_TOKEN_DB_URL", raising=False)
    Initializer.initializer = Initializer.LOCAL.init = None
    yield
    Initializer.initializer = Initializer.LOCAL.init = None


def commands() -> list[str]:
    lines = [line for block in blocks(README, "sh") for line in block.splitlines()]
    return [line for line in lines if not line.startswith("export ")]


def test_every_command_of_the_readme_is_here_or_in_ci(tmp_path):
    url = f"sqlite:///{tmp_path / 'zohooauth.db'}"
    FileStore("sdk_tokens.txt").save_token(granted("alice"))
    for command in commands():
        if command in RUN_BY_CI:
            assert RUN_BY_CI[command] in CI.replace('python" -m pip', "pip"), command
            continue
        name, *arguments = command.split()
        ini = ["-c", CHECKOUT / "alembic.ini"] if name == "alembic" else []
        result = run(name, *ini, *arguments, cwd=tmp_path, url=url)
        assert result.returncode == 0, (command, result.stderr)


def test_every_command_of_the_program_is_in_the_changelog():
    changelog = (CHECKOUT / "CHANGELOG.md").read_text()
    assert [name for name in main.commands if f"`{name}`" not in changelog] == []


@pytest.mark.parametrize("name", ["sqlite-file", "postgresql", "mysql", "mariadb"])
def test_the_first_example_logs_a_user_in_on_each_database(name, tmp_path, monkeypatch):
    with ZohoSimulator() as zoho, fresh_database(name, tmp_path) as database:
        schema.upgrade(database.url)
        monkeypatch.setattr(USDataCenter, "PRODUCTION", lambda: zoho.environment)
        alice = zoho.add_user("alice@example.com")
        code = snippet("grant_token=").replace("sqlite:///zohooauth.db", database.url)
        for given in (zoho.client_id, zoho.client_secret, zoho.grant(alice), "https://example.com"):
            code = code.replace('"..."', repr(given), 1)
        names: dict = {}
        exec(code, names)
        with names["store"] as store:
            (token,) = store.get_tokens()
            assert token.get_user_signature().get_name() == alice.name


def test_the_second_example_purges_and_lists(tmp_path, capsys):
    with SQLAlchemyTokenStore() as store:
        store.save_token(granted("alice"))
    exec(snippet("purge("), {"SQLAlchemyTokenStore": SQLAlchemyTokenStore})
    assert "0 tokens deleted" in capsys.readouterr().out


def test_the_example_of_the_schema_makes_and_checks_it(tmp_path):
    exec(snippet("schema.upgrade"), {})
    assert schema.current() == schema.head()


def test_the_example_for_a_host_leaves_both_tables_out(tmp_path):
    names: dict = {}
    exec(snippet("include_name"), names)
    ours = [OAuthTokenRow.__tablename__, f"{OAuthTokenRow.__tablename__}_alembic_version"]
    assert [name for name in [*ours, "invoice"] if names["include_name"](name, "table", {})] == [
        "invoice"
    ]


def test_the_examples_of_the_testing_guide_pass(tmp_path):
    (tmp_path / "test_examples.py").write_text("\n\n".join(blocks(TESTING, "python")))
    result = run(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_examples.py"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stdout
    assert " skipped" not in result.stdout


def test_the_engine_of_the_operations_guide_works_in_one_round_trip_a_call(tmp_path):
    (code,) = blocks(OPERATIONS, "python")
    with fresh_database("postgresql", tmp_path) as database:
        schema.upgrade(database.url)
        own = re.sub(r'"postgresql\+psycopg://.*?"', repr(str(database.url)), code)
        names: dict = {}
        exec(own, names)
        token = granted("alice")
        names["store"].save_token(token)
        with statements(names["engine"]) as seen:
            assert values(names["store"].find_token_by_id(token.get_id())) == values(token)
        assert seen == ["SELECT"]
        names["engine"].dispose()


def test_the_quickstart_tells_the_life_of_a_token_without_its_secrets(tmp_path):
    url = f"sqlite:///{tmp_path / 'demo.db'}"
    result = run(sys.executable, CHECKOUT / "examples" / "quickstart.py", cwd=tmp_path, url=url)
    assert result.returncode == 0, result.stderr
    asked = re.findall(r"Zoho was asked for: (.*)", result.stdout)
    assert asked == [
        "grant, users, org, users",
        "users",
        "refresh, users",
        "grant, users, org, users",
    ]
    with SQLAlchemyTokenStore(url) as store:
        tokens: list[OAuthToken] = store.get_tokens()
    assert len(tokens) == 2
    for token in tokens:
        assert token.get_user_signature().get_name() in result.stdout
        for secret in (
            token.get_refresh_token(),
            token.get_access_token(),
            token.get_grant_token(),
        ):
            assert secret not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"ZOHO_GRANT_TOKEN": "geheim"}, "set ZOHO_CLIENT_ID, ZOHO_CLIENT_SECRET, ZOHO_DATA_C"),
        (
            {
                "ZOHO_CLIENT_ID": "1",
                "ZOHO_CLIENT_SECRET": "geheim",
                "ZOHO_GRANT_TOKEN": "geheim",
                "ZOHO_DATA_CENTER": "moon",
            },
            "ZOHO_DATA_CENTER must be",
        ),
    ],
)
def test_the_quickstart_says_what_the_real_zoho_wants(tmp_path, settings, answer):
    result = run(sys.executable, CHECKOUT / "examples" / "quickstart.py", cwd=tmp_path, **settings)
    assert result.returncode == 1
    assert answer in result.stderr
    assert "geheim" not in result.stdout + result.stderr


def test_the_tests_look_for_the_servers_where_docker_compose_starts_them():
    compose = (CHECKOUT / "docker-compose.yml").read_text()
    servers = (CHECKOUT / ".ci" / "servers").read_text()
    for name, url in SERVERS.items():
        port = tests.databases.make_url(url).port
        assert f"  {name}:\n" in compose
        assert f'"127.0.0.1:{port}:' in compose
        assert str(port) in servers


@pytest.mark.parametrize("value", ["mysqll", "mysql;mariadb", "all"])
def test_a_requirement_that_nothing_can_meet_is_refused(monkeypatch, value):
    monkeypatch.setenv("ZOHO_TOKEN_ORM_REQUIRE", value)
    with pytest.raises(pytest.UsageError, match="it may name postgresql, mysql, mariadb"):
        tests.databases.required()


def test_the_required_servers_may_be_written_with_spaces(monkeypatch):
    monkeypatch.setenv("ZOHO_TOKEN_ORM_REQUIRE", " postgresql, mysql,")
    assert tests.databases.required() == {"postgresql", "mysql"}


def test_versions_agree():
    version = re.search(r'^version = "(.*)"', (CHECKOUT / "pyproject.toml").read_text(), re.M)
    assert version
    assert version[1] == sys.modules["zoho_token_orm"].__version__
    assert f"## {version[1]}" in (CHECKOUT / "CHANGELOG.md").read_text()
