"""The project of docs/how-to/django.md, made with Django's own commands."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import pgdoc
from tests.docs.pages import ROOT
from tests.docs.project import environment, write_files
from tests.examples.dying import STEPS

if TYPE_CHECKING:
    from pathlib import Path

PAGE = "docs/how-to/django.md"
LIMIT_S = 120
DYING_COMMAND = """
import sys
import django
from django.core.management import call_command
from tests.examples.dying import Death, await_death

await_death(Death(sys.argv[1], int(sys.argv[2])))
django.setup()
call_command("watch_orders")
"""
_MAKES_MIGRATION = re.compile(r"^\$ python (manage\.py makemigrations .+)$", re.MULTILINE)
MIGRATION = "shop/migrations/0002_watch_orders.py"


class Project:
    """A project in a folder, on a database."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.folder, self.dsn = folder, dsn
        self.variables = environment(folder, DJANGO_SETTINGS_MODULE="config.settings")

    def make(self) -> None:
        self.run("-m", "django", "startproject", "config", ".", DJANGO_SETTINGS_MODULE="")
        self.run("manage.py", "startapp", "shop")
        names = conninfo_to_dict(self.dsn)
        database: dict[str, Any] = {"ENGINE": "django.db.backends.postgresql", "NAME": names["dbname"], "PASSWORD": ""}
        database |= {"OPTIONS": {"sslmode": "disable", "prepare_threshold": 5}}
        database |= {"USER": names.get("user", ""), "HOST": names.get("host", ""), "PORT": names.get("port", "")}
        with (self.folder / "config/settings.py").open("a") as settings:
            settings.write(f"\nDATABASES = {{'default': {database!r}}}\n")
        write_files(PAGE, self.folder)
        second = (self.folder / MIGRATION).rename(self.folder / "second")  # until the page's commands have made it
        for command in _MAKES_MIGRATION.findall((ROOT / PAGE).read_text(encoding="utf-8")):
            self.run(*command.split())
        second.replace((self.folder / MIGRATION).resolve(strict=True))
        self.run("manage.py", "migrate")

    def run(self, *arguments: str, **variables: str) -> None:
        command = [sys.executable, *arguments]
        environ = {**self.variables, **variables}
        done = subprocess.run(command, cwd=self.folder, env=environ, check=False, timeout=LIMIT_S, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()


@pytest.fixture
def project(tmp_path: Path, bare_dsn: str) -> Project:
    project = Project(tmp_path, bare_dsn)
    project.make()
    return project


def test_the_blocks_do_what_they_say_and_the_tests_of_the_page_leave_no_database(project: Project) -> None:
    project.run("-m", "tests.docs.run_blocks", PAGE)
    project.run("manage.py", "test", "shop")
    project.run(
        "manage.py",
        "shell",
        "-c",
        "from shop.store import conninfo; assert 'sslmode=disable' in conninfo(), conninfo()",
    )
    with psycopg.connect(project.dsn) as connection:
        names = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        assert connection.info.dbname in names
        assert f"test_{connection.info.dbname}" not in names


def test_each_effect_happens_once_although_the_command_is_killed_at_every_step(project: Project) -> None:
    insert = "INSERT INTO shop_order (customer, total, status) SELECT 'Ada', n, 'new' FROM generate_series(1, 60) n"
    project.run("manage.py", "watch_orders", "--declare")
    with pgdoc.Store(project.dsn) as store, psycopg.connect(project.dsn, autocommit=True) as connection:
        connection.execute(insert)
        for step, count in (*((step, 3) for step in STEPS), ("checkpoint", 2)):
            command = [sys.executable, "-c", DYING_COMMAND, step, str(count)]
            died = subprocess.run(command, cwd=project.folder, env=project.variables, check=False, timeout=LIMIT_S)
            assert died.returncode == -signal.SIGKILL
        with subprocess.Popen(
            [sys.executable, "manage.py", "watch_orders"], cwd=project.folder, env=project.variables
        ) as process:
            try:
                store.wait_for("shop", timeout=LIMIT_S)
                process.terminate()
                assert process.wait(LIMIT_S) == 0
            finally:
                process.kill()
        assert connection.execute("SELECT name, orders FROM shop_customer").fetchall() == [("Ada", 60)]
        assert store["receipts"].count() == 60
        store.drop_consumer("shop")
