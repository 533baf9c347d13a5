"""Servers that fork when the store has been made and used: multiprocessing, gunicorn, Celery."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import event
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken

from tests.databases import Database
from tests.load.application import celery_settings, environment_of
from tests.load.process import LONGEST
from tests.support import CHECKOUT, granted, values
from zoho_token_orm import SQLAlchemyTokenStore
from zoho_token_orm.database import URL_VARIABLE
from zoho_token_orm.testing.simulator import SimulatedUser, ZohoSimulator

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

CHILDREN = 4
TIMES = 20
PROCESSES = 3
CALLS = 12


# multiprocessing


class Child:
    """A process that is forked here and now, with the store as it is."""

    def __init__(self, work: Callable[[Connection], None]) -> None:
        fork = multiprocessing.get_context("fork")
        self.pipe, theirs = fork.Pipe()
        self.process = fork.Process(target=work, args=(theirs,))
        self.process.start()
        theirs.close()

    def answer(self) -> Any:
        assert self.pipe.poll(LONGEST), "the child hangs"
        return self.pipe.recv()

    def end(self) -> None:
        """Waits for its end, in which it closes what it has."""
        self.process.join(LONGEST)
        assert self.process.exitcode == 0

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def uses(store: SQLAlchemyTokenStore, name: str) -> Callable[[Connection], None]:
    """What a child does: it saves a user of its own, and says what it finds."""

    def work(pipe: Connection) -> None:
        token = granted(name)
        store.save_token(token)
        pipe.send(values(store.find_token_by_id(token.get_id())))
        pipe.send(store.engine.pool.checkedout())

    return work


def check_child(child: Child, store: SQLAlchemyTokenStore, name: str) -> None:
    """It has saved and found its user, has no connection checked out, and the row is there."""
    seen = child.answer()
    assert child.answer() == 0
    child.end()
    assert [seen] == [values(row) for row in store.get_tokens() if row.get_id() == seen["id"]]
    assert seen["grant_token"] == granted(name).get_grant_token()


def test_children_and_parent_go_on_with_a_store_that_was_used_before_the_fork(store):
    token = granted("parent")
    store.save_token(token)
    together = multiprocessing.get_context("fork").Barrier(CHILDREN + 1)

    def work(name: str, pipe: Connection) -> None:
        together.wait(LONGEST)
        for _ in range(TIMES):
            uses(store, name)(pipe)

    with ExitStack() as stack:
        names = [f"child{number}" for number in range(CHILDREN)]
        children = [stack.enter_context(Child(partial(work, name))) for name in names]
        together.wait(LONGEST)
        for _ in range(TIMES):
            store.save_token(token)
        for child, name in zip(children, names, strict=True):
            for _ in range(TIMES - 1):
                assert [child.answer()["grant_token"], child.answer()] == [f"1000.grant-{name}", 0]
            check_child(child, store, name)
    assert len(store.get_tokens()) == 1 + CHILDREN


def test_each_child_has_a_session_of_its_own_and_leaves_the_parents_alone(database, store):
    """A shared one would be noticed, lost and replaced: slow, and with luck, no error is seen."""
    if not database.is_server:
        pytest.skip("a file has no sessions")
    store.save_token(granted("parent"))
    own = session(store)
    with ExitStack() as stack:
        children = [
            stack.enter_context(Child(lambda pipe: pipe.send(session(store))))
            for _ in range(CHILDREN)
        ]
        theirs = [child.answer() for child in children]
        for child in children:
            child.end()
    assert len({own, *theirs}) == 1 + CHILDREN
    assert session(store) == own


def session(store: SQLAlchemyTokenStore) -> int:
    """The server's number for the connection that the store uses next."""
    is_postgresql = store.engine.dialect.name == "postgresql"
    number = "pg_backend_pid()" if is_postgresql else "connection_id()"
    with store.engine.connect() as connection:
        return connection.exec_driver_sql(f"SELECT {number}").scalar_one()


@pytest.mark.parametrize("kind", ["url", "engine"])
def test_a_child_keeps_what_it_saves_though_its_parent_closes_all(database, callers_engine, kind):
    """SQLite notes per process what is locked; a child that took the parent's note for its own
    would write to a file that the parent, as the last one who has it open, deletes."""
    SQLAlchemyTokenStore(database.url, create_schema=True).close()  # the file is in WAL for good
    store = SQLAlchemyTokenStore(callers_engine if kind == "engine" else database.url)
    store.save_token(granted("parent"))
    closed = multiprocessing.get_context("fork").Event()

    def work(pipe: Connection) -> None:
        store.save_token(granted("before"))
        pipe.send("saved")
        assert closed.wait(LONGEST)
        store.save_token(granted("after"))

    with Child(work) as child:
        assert child.answer() == "saved"
        store.close()
        callers_engine.dispose()
        closed.set()
        child.end()
    with SQLAlchemyTokenStore(database.url) as another:
        grants = {row.get_grant_token() for row in another.get_tokens()}
    assert grants == {f"1000.grant-{name}" for name in ("parent", "before", "after")}


def test_a_child_works_that_is_forked_while_threads_of_the_parent_are_in_the_store(store):
    tokens = [granted(f"thread{number}") for number in range(4)]
    for token in tokens:
        store.save_token(token)
    stop = threading.Event()

    def work(token: OAuthToken) -> None:
        while not stop.is_set():
            store.save_token(token)
            assert store.find_token_by_id(token.get_id()) is not None

    with ThreadPoolExecutor(len(tokens)) as pool:
        threads = [pool.submit(work, token) for token in tokens]
        try:
            for number in range(20):
                with Child(uses(store, f"child{number}")) as child:
                    check_child(child, store, f"child{number}")
        finally:
            stop.set()
        for thread in threads:
            thread.result()
    assert len(store.get_tokens()) == 24


@pytest.mark.parametrize("word", ["SELECT", "DELETE", "COMMIT"])
def test_a_child_works_that_is_forked_in_the_middle_of_another_threads_save(store, word):
    """The other thread makes two rows one; whether the fork waits for it is the store's affair."""
    store.save_token(granted("alice"))
    twin = granted("twin")
    twin.set_user_signature(None)
    store.save_token(twin)
    twin.set_user_signature(granted("alice").get_user_signature())
    with ThreadPoolExecutor(1) as pool, held_before(store, word) as (is_held, let_go):
        saving = pool.submit(store.save_token, twin)
        assert is_held.wait(LONGEST)
        timer = threading.Timer(0.5, let_go.set)  # the fork may wait for the save
        timer.start()
        with Child(uses(store, "child")) as child:
            timer.join()
            saving.result(LONGEST)
            check_child(child, store, "child")
    assert len(store.get_tokens()) == 2


@contextmanager
def held_before(
    store: SQLAlchemyTokenStore, word: str
) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Holds the first statement with that word: the events say that it is held, and let it go."""
    is_held, let_go = threading.Event(), threading.Event()

    def hold(connection, cursor, statement, *rest):
        if statement.startswith(word) and not is_held.is_set():
            is_held.set()
            let_go.wait(LONGEST)

    event.listen(store.engine, "before_cursor_execute", hold)
    try:
        yield is_held, let_go
    finally:
        let_go.set()
        event.remove(store.engine, "before_cursor_execute", hold)


# gunicorn and Celery


@pytest.fixture
def zoho() -> Iterator[ZohoSimulator]:
    with ZohoSimulator() as running:
        yield running


@pytest.fixture
def alice(zoho: ZohoSimulator) -> SimulatedUser:
    return zoho.add_user("alice@example.com", leads=("Anders", "Ash"))


@pytest.fixture
def environment(database: Database, store, zoho, alice, tmp_path) -> dict[str, str]:
    """What a server is told: where the database and Zoho are, and alice's consent."""
    return {
        **os.environ,
        **environment_of(zoho, zoho.grant(alice)),
        URL_VARIABLE: database.url,
        "PYTHONPATH": str(CHECKOUT),
        "LOAD_FOLDER": str(tmp_path),
    }


@contextmanager
def server(folder: Path, environment: dict[str, str], *command: str, fds: tuple[int, ...] = ()):
    """A server that is stopped as an administrator does it, and ends in good order."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=folder, env=environment, pass_fds=fds
    )
    try:
        yield process
        process.terminate()
        assert process.wait(LONGEST) == 0
    finally:
        process.kill()
        process.wait()


def expire(store: SQLAlchemyTokenStore, user: SimulatedUser) -> None:
    """Makes the user's access token one whose time is over."""
    (row,) = (row for row in store.get_tokens() if row.get_user_signature().get_name() == user.name)
    row.set_expires_in("1000")
    store.save_token(row)


def test_gunicorn_with_preload_serves_from_each_of_its_workers(
    store, zoho, alice, environment, tmp_path
):
    with (
        socket.create_server(("127.0.0.1", 0), backlog=64) as listening,
        gunicorn(tmp_path, environment, listening) as ask,
        ThreadPoolExecutor(CALLS) as pool,
    ):
        first = ask()
        assert first["leads"] == first["in_master"] == ["Anders", "Ash"]
        with zoho.hold("leads", alice) as held:
            calls = [pool.submit(ask) for _ in range(PROCESSES)]
            held.wait_for(PROCESSES, LONGEST)  # each in another worker, which does one at a time
        workers = {call.result(LONGEST)["pid"] for call in calls}
        assert len(workers) == PROCESSES
        expire(store, alice)
        zoho.clear_calls()
        calls = [pool.submit(ask) for _ in range(CALLS)]
        answers = [call.result(LONGEST) for call in calls]
    assert {answer.pop("pid") for answer in answers} <= workers
    assert (
        answers
        == [{"in_master": ["Anders", "Ash"], "leads": ["Anders", "Ash"], "checked_out": 0}] * CALLS
    )
    assert (zoho.count("refresh"), zoho.count("grant")) == (1, 0)
    assert len(store.get_tokens()) == 1


@contextmanager
def gunicorn(
    folder: Path, environment: dict[str, str], listening: socket.socket
) -> Iterator[Callable[[], dict[str, Any]]]:
    """Three workers on a socket that listens already, so that no request comes too early."""
    fd = listening.fileno()
    options = ["--preload", "-w", str(PROCESSES), "--bind", f"fd://{fd}", "--timeout", "120"]
    options += ["--no-control-socket"]  # its place is one for all servers of this user
    url = "http://{}:{}/".format(*listening.getsockname())

    def ask() -> dict[str, Any]:
        with urllib.request.urlopen(url, timeout=LONGEST) as answer:
            return json.load(answer)

    app = "tests.load.gunicorn_app"
    with server(folder, environment, "gunicorn", *options, app, fds=(fd,)):
        yield ask


def test_celery_with_prefork_works_in_each_of_its_processes(
    store, zoho, alice, environment, tmp_path
):
    options = ["--pool=prefork", "-c", str(PROCESSES), "-O", "fair", "--loglevel=WARNING"]
    options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    command = ["celery", "-A", "tests.load.celery_app", "worker", *options]
    for name in ("queue", "control", "results"):
        (tmp_path / name).mkdir()
    with Celery("load", set_as_current=False) as client, server(tmp_path, environment, *command):
        client.conf.update(celery_settings(tmp_path))

        def send(task: str, *given: Any) -> Callable[[], dict[str, Any]]:
            result = client.send_task(f"tests.load.celery_app.{task}", given)
            return lambda: result.get(timeout=LONGEST, interval=0.05)

        first = send("read_leads")()
        assert first["leads"] == first["leads_in_parent"] == ["Anders", "Ash"]
        with zoho.hold("leads", alice) as held:
            tasks = [send("read_leads") for _ in range(PROCESSES)]
            held.wait_for(PROCESSES, LONGEST)  # each in another process, which does one at a time
        answers = [answer() for answer in tasks]
        workers = {answer["pid"] for answer in answers}
        tasks = [send("save_and_find", f"user{number}") for number in range(CALLS)]
        found = [answer() for answer in tasks]
    assert len(workers) == PROCESSES
    assert first["parent"] not in workers
    assert [one["refresh_token"] for one in found] == [
        f"1000.refresh-user{number}" for number in range(CALLS)
    ]
    assert {one["checked_out"] for one in [first, *answers, *found]} == {0}
    assert len(store.get_tokens()) == 1 + CALLS
