"""A PostgreSQL server of its own for a test: Debian's programs, a Unix socket, a folder that goes away."""

import contextlib
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.lifeline import if_we_end

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
_LONG_S = 60


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Yield the URL of a server's first database; the server ends with the block."""
    if not (PROGRAMS / "initdb").exists():
        pytest.skip("POSTGRESQL NOT CHECKED: install the package postgresql (Debian: version 15)")
    # A short path: a socket's is limited to 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="kmsplug-pg-", dir="/tmp"))
    data = folder / "data"
    try:
        data.mkdir(mode=0o700)
        owner = _owner()
        if owner is not None:  # the server refuses to run as root
            for path in (folder, data):
                os.chown(path, owner.pw_uid, owner.pw_gid)
            folder.chmod(0o755)
        _run(owner, "initdb", "-D", data, "-U", "kmsplug", "-A", "trust", "--no-sync", "-E", "UTF8")
        settings = (
            f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c shared_buffers=16MB"
        )
        _run(owner, "pg_ctl", "-D", data, "-o", settings, "-w", "-l", data / "log", "start")
        pid = (data / "postmaster.pid").read_text().split()[0]
        try:
            with if_we_end("kill", "-s", "QUIT", pid):  # stops at once
                yield f"postgresql://kmsplug@/postgres?host={folder}"
        finally:
            _run(owner, "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def database(server: str) -> Iterator[str]:
    """Yield the URL of a fresh database of a server."""
    name = f"test_{secrets.token_hex(8)}"
    engine = sa.create_engine(
        server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    yield server.replace("/postgres?", f"/{name}?")


def _owner() -> "pwd.struct_passwd | None":
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else None


def _run(owner: "pwd.struct_passwd | None", program: str, *arguments: object) -> None:
    who: dict[str, Any] = (
        {} if owner is None else {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    )
    done = subprocess.run(
        [str(PROGRAMS / program), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # a pipe would be the server's too, and never end
        stderr=subprocess.DEVNULL,
        timeout=_LONG_S,
        cwd="/",
        check=False,
        **who,
    )
    assert done.returncode == 0, f"{program} ended with {done.returncode}"
