"""The Docker files have the settings of LocalServer; no Docker engine is needed to compare them."""

from pathlib import Path

import pytest
import yaml

from pgdoc.server.local import SERVER_SETTINGS

FOLDER = Path(__file__).parents[2] / "docker"


@pytest.fixture
def service():
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]["postgres"]


def test_the_container_has_the_settings_of_a_local_server():
    lines = (FOLDER / "pgdoc.conf").read_text().splitlines()
    settings = dict(line.split(" = ") for line in lines if " = " in line)
    needed = {name: str(value) for name, value in SERVER_SETTINGS.items() if name.startswith(("wal_", "max_"))}
    assert settings == needed


def test_the_image_is_built_from_what_is_in_the_folder():
    words = [line.split() for line in (FOLDER / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")]
    assert words
    for _, source, _ in words:
        assert (FOLDER / source).is_file()


def test_compose_builds_the_dockerfile_beside_it(service):
    assert (FOLDER / service["build"]["context"] / "Dockerfile").is_file()
    assert "ARG PG_MAJOR" in (FOLDER / "Dockerfile").read_text()
    assert service["build"]["args"].keys() == {"PG_MAJOR"}


def test_compose_listens_on_this_machine_only(service):
    assert all(port.startswith("127.0.0.1:") and port.endswith(":5432") for port in service["ports"])


def test_compose_is_healthy_when_tcp_answers(service):
    """During its init phase the image already answers on the socket, and then restarts."""
    assert service["healthcheck"]["test"][:3] == ["CMD", "pg_isready", "--host=127.0.0.1"]
