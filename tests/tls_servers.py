"""Servers that offer TLS, with certificates made on the spot, each on a free port of 127.0.0.1."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NoReturn

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import URL

from tests.databases import required
from tests.proxy import Proxy

NAME, WRONG_NAME = "localhost", "127.0.0.1"
"""The host for which a server's certificate is made out, and another way to the same server."""
CHROOT = Path(os.environ.get("ZOHO_TOKEN_ORM_SERVERS", "/var/lib/zoho-token-orm-servers")) / "sid"
"""Where .ci/servers keeps Oracle's MySQL."""


@dataclass(frozen=True)
class TLSServer:
    """A running server.

    Attributes:
        name: Which one.
        url: The administrator's URL, to the host of the certificate, without options.
        ca: The certificate of the authority that has signed the server's.
        other_ca: One of the same name that has not.
    """

    name: str
    url: URL
    ca: Path
    other_ca: Path


class Authority:
    """Signs certificates."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
        builder = self._builder(self._name, self._key.public_key())
        self.certificate = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        ).sign(self._key, hashes.SHA256())

    def certify(self, host: str) -> tuple[bytes, bytes]:
        """A certificate for that host and its key, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        builder = self._builder(subject, key.public_key()).add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        pem = serialization.Encoding.PEM
        plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return certificate.public_bytes(pem), key.private_bytes(pem, *plain)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = datetime.now(timezone.utc)
        own = self._key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )


@dataclass(frozen=True)
class Home:
    """A folder of a server's own, and how its programs run: as another user where this is root.

    Attributes:
        user: The user of the server.
        folder: The folder as this process sees it.
        root: What the server takes for the root of the file system.
    """

    user: str
    folder: Path
    root: Path

    def path(self, name: str) -> str:
        """A file in the folder, as the server sees it."""
        return f"/{(self.folder / name).relative_to(self.root)}"

    def write(self, name: str, data: bytes) -> str:
        """A new file, for the server alone; returns its path as the server sees it."""
        (self.folder / name).write_bytes(data)
        (self.folder / name).chmod(0o600)
        self.own(self.folder / name)
        return self.path(name)

    def own(self, path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, *self._ids())

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Starts a program; what it says is in ``stderr``.

        Its temporary files are in the folder: MariaDB, starting, deletes those of other servers.
        """
        as_user, options = self._as_user()
        return subprocess.Popen(
            [*as_user, *command],
            cwd=self.folder,
            env={**os.environ, "LC_ALL": "C", "TMPDIR": self.path(".")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def run(self, *command: str) -> None:
        with self.start(*command) as process:
            said = process.stderr.read()
        assert process.returncode == 0, said

    def _as_user(self) -> tuple[list[str], dict[str, Any]]:
        """What comes before a command, and the options of Popen; a server does not run as root."""
        if os.geteuid() != 0:
            return [], {}
        user, group = self._ids()
        if self.root == Path("/"):
            return [], {"user": user, "group": group, "extra_groups": []}
        return ["chroot", f"--userspec={user}:{group}", str(self.root)], {}

    def _ids(self) -> tuple[int, int]:
        """The numbers of the user, who may be another one under another root."""
        for line in (self.root / "etc" / "passwd").read_text().splitlines():
            name, _, user, group, *_ = line.split(":")
            if name == self.user:
                return int(user), int(group)
        raise LookupError(self.user)


@contextmanager
def home(user: str, root: Path = Path("/")) -> Iterator[Home]:
    parent = root / "tmp" if root != Path("/") else None
    folder = Path(tempfile.mkdtemp(prefix="zto-tls-", dir=parent))
    made = Home(user, folder, root)
    try:
        made.own(folder)
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def tls_server(name: str, folder: Path) -> Iterator[TLSServer]:
    """A server with TLS, stopped afterwards; where its programs are missing, the test is skipped.

    Args:
        name: Which server.
        folder: Where the authorities' certificates go.
    """
    authority = Authority()
    ca, other_ca = folder / f"{name}-ca.pem", folder / f"{name}-other-ca.pem"
    ca.write_bytes(authority.pem)
    other_ca.write_bytes(Authority().pem)
    with {"postgresql": postgresql, "mysql": mysql, "mariadb": mariadb}[name](authority) as url:
        yield TLSServer(name, url, ca, other_ca)


@contextmanager
def postgresql(authority: Authority) -> Iterator[URL]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name))
    initdb = shutil.which("initdb", path=str(programs[-1])) if programs else shutil.which("initdb")
    if initdb is None or not _has_user("postgres"):
        _absent("postgresql", "initdb and postgres, in the PATH or in /usr/lib/postgresql")
    password, port = secrets.token_hex(8), _free_port()
    with home("postgres") as own:
        data, files = own.path("data"), _files(own, authority)
        given = own.write("password", password.encode())
        own.run(
            *(initdb, "-D", data, "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C"),
            *("-A", "scram-sha-256", f"--pwfile={given}"),
        )
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "ssl": "on",
            "ssl_cert_file": files["cert"],
            "ssl_key_file": files["key"],
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        program = str(Path(initdb).with_name("postgres"))
        with _running(own, "ready to accept", program, "-D", data, "-p", str(port), *options):
            yield URL.create(
                "postgresql+psycopg", "postgres", password, NAME, port, database="postgres"
            )


@contextmanager
def mariadb(authority: Authority) -> Iterator[URL]:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    program = shutil.which("mariadbd", path=path)
    install = shutil.which("mariadb-install-db", path=path)
    if program is None or install is None or not _has_user("mysql"):
        _absent("mariadb", "mariadbd and mariadb-install-db in the PATH")
    with home("mysql") as own:
        own.run(install, "--no-defaults", f"--datadir={own.path('data')}", "--skip-test-db")
        with _mysql_running(own, authority, program) as url:
            yield url.set(drivername="mariadb+pymysql")


@contextmanager
def mysql(authority: Authority) -> Iterator[URL]:
    root = CHROOT if (CHROOT / "installed").exists() and os.geteuid() == 0 else Path("/")
    if root != CHROOT and not (_has_oracles_mysqld() and _has_user("mysql")):
        _absent("mysql", "Oracle's mysqld in the PATH, or root and .ci/servers start")
    with home("mysql", root) as own:
        own.run(
            *("mysqld", "--no-defaults", f"--datadir={own.path('data')}", "--initialize-insecure"),
            *("--auto-generate-certs=OFF", "--skip-log-bin"),
        )
        with _mysql_running(own, authority, "mysqld", "--mysqlx=OFF", "--skip-log-bin") as url:
            yield url


@contextmanager
def _mysql_running(own: Home, authority: Authority, program: str, *options: str) -> Iterator[URL]:
    password, port = secrets.token_hex(8), _free_port()
    first = own.write(
        "first.sql",
        f"CREATE DATABASE tokens;\nCREATE USER tls@'%' IDENTIFIED BY '{password}';\n"
        "GRANT ALL ON tokens.* TO tls@'%';\n".encode(),
    )
    files = _files(own, authority)
    with _running(
        own,
        "ready for connections",
        *(program, "--no-defaults", f"--datadir={own.path('data')}", f"--port={port}"),
        *("--bind-address=127.0.0.1", "--skip-name-resolve", f"--socket={own.path('socket')}"),
        *(f"--pid-file={own.path('pid')}", f"--init-file={first}", *options),
        *(f"--ssl-{name}={path}" for name, path in files.items()),
    ):
        yield URL.create("mysql+pymysql", "tls", password, NAME, port, "tokens")


def _files(own: Home, authority: Authority) -> dict[str, str]:
    certificate, key = authority.certify(NAME)
    contents = {"ca": authority.pem, "cert": certificate, "key": key}
    return {name: own.write(f"{name}.pem", pem) for name, pem in contents.items()}


@contextmanager
def _running(own: Home, ready: str, *command: str) -> Iterator[None]:
    process = own.start(*command)
    said = []
    try:
        for line in process.stderr:
            said.append(line)
            if ready in line:
                break
        else:
            pytest.fail(f"the server does not start: {''.join(said[-20:])}")
        yield
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def _has_user(name: str) -> bool:
    """Whether there is somebody to run the server as, where this is root."""
    if os.geteuid() != 0:
        return True
    with suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


def _has_oracles_mysqld() -> bool:
    """Debian calls MariaDB's server mysqld as well."""
    if shutil.which("mysqld") is None:
        return False
    said = subprocess.run(["mysqld", "--version"], capture_output=True, text=True, check=False)
    return "MySQL" in said.stdout


def _absent(name: str, wanted: str) -> NoReturn:
    message = f"no {name} with TLS: the test starts one of its own and wants {wanted}"
    if name in required():
        pytest.fail(f"{message} (ZOHO_TOKEN_ORM_REQUIRE names it)")
    pytest.skip(message)


class Stripping(Proxy):
    """A way to a server through somebody who makes it look as if it offered no TLS."""

    def __init__(self, server: TLSServer) -> None:
        super().__init__(server.url)
        self._is_postgresql = server.name == "postgresql"
        self.url = self.url.set(host=NAME)

    def _pass_on(self, source: socket.socket, target: socket.socket, counts: int) -> None:
        with suppress(OSError):
            if self._is_postgresql and counts:
                assert source.recv(8)[4:] == b"\x04\xd2\x16\x2f"  # SSLRequest
                source.sendall(b"N")
            elif not self._is_postgresql and not counts:
                target.sendall(without_tls(source.recv(1 << 16)))
        super()._pass_on(source, target, counts)


def without_tls(greeting: bytes) -> bytes:
    """The greeting of MySQL's protocol, its flag for TLS taken out."""
    flags = greeting.index(0, 5) + 1 + 4 + 8 + 1  # after the version: thread, salt, a filler
    changed = bytearray(greeting)
    changed[flags + 1] &= ~0x08
    return bytes(changed)
