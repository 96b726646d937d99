import base64
import grp
import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from kmsplug_plugins.local._files import UnsafeFileError, check_folders
from kmsplug_plugins.local._keyfile import create_key_file, read_key_file
from unit.plugins.local_support import Keystore, keystore, refused_configuration

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
SOMEBODY = 65534


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "master.key"
    path.parent.mkdir(mode=0o700)
    create_key_file(path)
    return path


def test_a_key_file_is_one_private_line_of_text(key_file: Path) -> None:
    line = key_file.read_bytes()

    assert line.startswith(b"KMSPLUG-LOCAL-MASTER-KEY-1:")
    assert line.endswith(b"\n")
    assert base64.b64decode(line.split(b":")[1], validate=False) == read_key_file(key_file)
    assert len(read_key_file(key_file)) == 32
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert [path.name for path in key_file.parent.iterdir()] == ["master.key"]


def test_an_existing_key_file_is_never_replaced(key_file: Path) -> None:
    before = read_key_file(key_file)

    create_key_file(key_file)

    assert read_key_file(key_file) == before


def test_a_key_does_not_show_itself(key_file: Path) -> None:
    key = read_key_file(key_file)

    assert "32 secret bytes" in repr(key)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o610, 0o660, 0o666, 0o644])
def test_a_key_file_that_others_may_use_is_refused(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)

    with pytest.raises(UnsafeFileError, match="chmod 600"):
        read_key_file(key_file)


def test_a_symbolic_link_is_refused_even_to_a_good_key_file(key_file: Path) -> None:
    link = key_file.with_name("link.key")
    link.symlink_to(key_file)

    with pytest.raises(UnsafeFileError, match="symbolic link"):
        read_key_file(link)


def test_a_key_file_with_two_names_is_refused(key_file: Path) -> None:
    key_file.with_name("copy.key").hardlink_to(key_file)

    with pytest.raises(UnsafeFileError, match="hard links"):
        read_key_file(key_file)


def test_a_temporary_name_that_a_killed_process_left_is_cleared_away(key_file: Path) -> None:
    left = key_file.with_name(".master.key.0123456789abcdef.new")
    left.hardlink_to(key_file)

    assert len(read_key_file(key_file)) == 32
    assert not left.exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: b"",
        lambda line: line[:-1],
        lambda line: line + b"\n",
        lambda line: line + b"x",
        lambda line: line.replace(b"KEY-1", b"KEY-2"),
        lambda line: line[:-2] + b"\n\n",
        lambda line: line[:27] + b"!" + line[28:],
        lambda line: line[:-3] + bytes([line[-3] + 1]) + b"=\n",
        lambda line: b"\xff" * 72,
    ],
)
def test_a_key_file_that_is_not_exactly_right_is_refused_and_not_quoted(
    key_file: Path, spoil: Callable[[bytes], bytes]
) -> None:
    line = key_file.read_bytes()
    key_file.write_bytes(spoil(line))

    with pytest.raises(UnsafeFileError) as caught:
        read_key_file(key_file)
    assert line[30:60].decode() not in str(caught.value)


def test_a_named_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    os.mkfifo(path, 0o600)

    with pytest.raises(UnsafeFileError, match="not a regular file"):
        read_key_file(path)


@as_root
def test_a_key_file_of_another_user_is_refused(key_file: Path) -> None:
    os.chown(key_file, SOMEBODY, -1)

    with pytest.raises(UnsafeFileError, match=f"uid {SOMEBODY}"):
        read_key_file(key_file)


def test_a_folder_that_anybody_can_write_to_is_refused_anywhere_above(key_file: Path) -> None:
    key_file.parent.parent.chmod(0o757)

    with pytest.raises(UnsafeFileError, match="chmod go-w"):
        read_key_file(key_file)
    with pytest.raises(UnsafeFileError, match="chmod go-w"):
        create_key_file(key_file.with_name("other.key"))
    assert not key_file.with_name("other.key").exists()


def test_a_sticky_folder_is_accepted_above_but_not_for_the_database(tmp_path: Path) -> None:
    sticky = tmp_path / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    (sticky / "mine").mkdir(mode=0o700)

    check_folders(sticky / "mine", sole_writer=True)
    check_folders(sticky)
    (sticky / "mine" / "link").symlink_to("..")
    for folder in (sticky, sticky / "mine" / "..", sticky / "mine" / "link", sticky / "mine" / "link" / "."):
        with pytest.raises(UnsafeFileError, match="others can write"):
            check_folders(folder, sole_writer=True)


def test_a_folder_that_only_my_own_group_can_write_to_is_accepted(tmp_path: Path) -> None:
    group = grp.getgrgid(os.getegid())
    if group.gr_name != pwd.getpwuid(os.geteuid()).pw_name or set(group.gr_mem) - {group.gr_name}:
        pytest.skip("this user has no private group")
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o775)

    check_folders(folder)


@as_root
def test_a_folder_that_another_group_can_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    os.chown(folder, -1, SOMEBODY)
    folder.chmod(0o775)

    with pytest.raises(UnsafeFileError, match="chmod go-w"):
        check_folders(folder)


@as_root
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    os.chown(folder, SOMEBODY, -1)

    with pytest.raises(UnsafeFileError, match=f"uid {SOMEBODY}"):
        check_folders(folder)


def test_folders_behind_a_symbolic_link_are_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "open" / "closed").mkdir(parents=True)
    (tmp_path / "link").symlink_to("open/../open/closed")
    check_folders(tmp_path / "link")

    (tmp_path / "open").chmod(0o777)

    with pytest.raises(UnsafeFileError, match="chmod go-w"):
        check_folders(tmp_path / "link")


@as_root
def test_a_symbolic_link_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    os.chown(tmp_path / "link", SOMEBODY, -1, follow_symlinks=False)

    with pytest.raises(UnsafeFileError, match=f"uid {SOMEBODY}"):
        check_folders(tmp_path / "link")


def test_symbolic_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    with pytest.raises(UnsafeFileError, match="too many"):
        check_folders(tmp_path / "a")


def test_every_file_of_the_store_is_private_while_it_is_used(local: Keystore, folder: Path) -> None:
    local.create()

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}

    assert modes == {
        "keystore.db": 0o600, "keystore.db-wal": 0o600, "keystore.db-shm": 0o600, "master.key": 0o600,
    }  # fmt: skip
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_files_are_private_under_any_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        with keystore(folder / "deeper") as session:
            session.create()
            modes = {stat.S_IMODE(path.stat().st_mode) for path in (folder / "deeper").iterdir()}
    finally:
        os.umask(before)

    assert modes == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_temporary_is_left_beside_a_new_store(folder: Path) -> None:
    with keystore(folder):
        pass

    assert sorted(path.name for path in folder.iterdir()) == ["keystore.db", "master.key"]


@pytest.mark.parametrize("name", ["keystore.db", "master.key"])
def test_the_driver_says_which_setting_is_wrong_and_what_to_do(folder: Path, name: str) -> None:
    with keystore(folder):
        pass
    (folder / name).chmod(0o644)

    error = refused_configuration({"path": str(folder)})

    assert error["data"]["code"] == "CONFIGURATION_ERROR"
    assert error["data"]["path"] == {"keystore.db": "path", "master.key": "key_file"}[name]
    assert f"chmod 600 {folder / name}" in error["message"]


def test_a_store_folder_that_others_can_write_to_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)

    error = refused_configuration({"path": str(folder)})

    assert error["data"] == {"code": "CONFIGURATION_ERROR", "path": "path"}
    assert f"chmod go-w {folder}" in error["message"]
    assert list(folder.iterdir()) == []


def test_a_database_that_is_a_symbolic_link_is_refused(folder: Path, tmp_path: Path) -> None:
    with keystore(folder):
        pass
    (folder / "keystore.db").rename(tmp_path / "elsewhere.db")
    (folder / "keystore.db").symlink_to(tmp_path / "elsewhere.db")

    assert "symbolic link" in refused_configuration({"path": str(folder)})["message"]


def test_a_store_whose_key_file_is_missing_is_not_given_a_new_one(folder: Path) -> None:
    with keystore(folder):
        pass
    (folder / "master.key").unlink()

    error = refused_configuration({"path": str(folder)})

    assert error["data"]["code"] == "CONFIGURATION_ERROR"
    assert error["data"]["path"] == "key_file"
    assert "is missing" in error["message"]
    assert not (folder / "master.key").exists()


def test_a_key_file_elsewhere_is_made_and_used(folder: Path, tmp_path: Path) -> None:
    key_file = tmp_path / "master.key"
    with keystore(folder, key_file=str(key_file)) as session:
        key_id = session.create()

    with keystore(folder, key_file=str(key_file)) as session:
        assert session.call("key.get", key_id=key_id)["key_id"] == key_id
    assert key_file.exists()
    assert not (folder / "master.key").exists()


def test_a_key_file_in_a_missing_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    error = refused_configuration({"path": str(folder), "key_file": str(tmp_path / "no" / "master.key")})

    assert error["data"]["path"] == "key_file"
    assert "no such file" in error["message"]


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    for path in (tmp_path / "file", tmp_path / "file" / "keystore"):
        assert refused_configuration({"path": str(path)})["data"]["code"] == "CONFIGURATION_ERROR"
        assert (
            refused_configuration({"path": str(path)}, dry_run=True)["data"]["code"] == "CONFIGURATION_ERROR"
        )
