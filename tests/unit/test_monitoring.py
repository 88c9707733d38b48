"""The dashboard, the alerts and the containers that show them agree with the table of metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from pgdoc.telemetry.catalogue import BY_NAME, METRICS, Half

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker" / "monitoring"
RUNBOOK = ROOT / "docs" / "how-to" / "run-in-production.md"

# Labels that Prometheus adds, and those of its own metrics.
OF_PROMETHEUS = {"job", "instance"}
NO_METRIC_OF_OURS = {"up", "ALERTS"}


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / "docker" / name).read_text())


def alerts() -> list[dict[str, Any]]:
    return [rule for group in load("monitoring/alerts.yaml")["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return found


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """Yield each expression with the template of its legend."""
    for panel in panels():
        for target in panel.get("targets", ()):
            yield target["expr"], target["legendFormat"]


def all_queries() -> list[tuple[str, str]]:
    of_alerts = [(rule["expr"], " ".join(rule["annotations"].values())) for rule in alerts()]
    return [*dashboard_queries(), *of_alerts]


def metrics_of(expression: str) -> set[str]:
    return set(re.findall(r"\bpgdoc_\w+", expression))


def labels_of(expression: str) -> set[str]:
    """Return the labels in selectors and in `by`, `on` and the like."""
    lists = re.findall(r"\b(?:by|on|without|ignoring|group_left|group_right) \(([^)]*)\)", expression)
    named = {name.strip() for each in lists for name in each.split(",")} - {""}
    return named | set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', expression))


@pytest.mark.parametrize(("expression", "text"), all_queries(), ids=lambda each: each[:60])
def test_a_query_names_metrics_and_labels_of_the_table(expression: str, text: str) -> None:
    names = metrics_of(expression)
    assert names or expression.startswith("up{")
    assert names <= BY_NAME.keys()
    allowed = {label for name in names for label in BY_NAME[name].labels} | OF_PROMETHEUS
    assert labels_of(expression) <= allowed
    shown = set(re.findall(r"\$labels\.(\w+)", text)) | set(re.findall(r"\{\{(\w+)\}\}", text))
    assert shown <= allowed


def test_every_metric_of_the_server_is_on_the_dashboard_or_in_an_alert() -> None:
    used = {name for expression, _ in all_queries() for name in metrics_of(expression)}
    unused = {metric.name for metric in METRICS if metric.half is Half.SERVER} - used
    assert unused == {"pgdoc_in_recovery"}


def test_a_counter_is_shown_by_its_increase() -> None:
    for expression, _ in all_queries():
        for name in metrics_of(expression):
            if name.endswith("_total"):
                assert re.search(rf"(rate|increase)\({name}\b[^)]*\[", expression), expression


def test_no_alert_depends_on_the_mode_of_a_stream() -> None:
    assert not any("mode" in rule["expr"] for rule in alerts())


def test_the_alerts_that_the_issue_asks_for() -> None:
    conditions = " ".join(rule["expr"] for rule in alerts())
    for wanted in (
        "pgdoc_consumer_oldest_unacked_seconds >",
        "pgdoc_stream_lag_seconds >",
        "pgdoc_slot_safe_wal_bytes <",
        "pgdoc_consumer_owned == 0",
        "pgdoc_slot_invalid > 0",
        'up{job="pgdoc"} == 0',
        "pgdoc_up == 0",
    ):
        assert wanted in conditions


def test_an_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in alerts():
        assert rule["labels"].keys() == {"severity"}
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"].keys() == {"summary", "runbook"}
        assert rule["annotations"]["runbook"].startswith(f"{RUNBOOK.relative_to(ROOT)}#")


def test_the_runbook_has_a_heading_for_each_alert() -> None:
    headings = re.findall(r"^#+ (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    anchors = {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}
    assert {rule["annotations"]["runbook"].partition("#")[2] for rule in alerts()} - anchors == set()


def test_each_alert_is_provoked_once_in_the_tests_of_the_rules() -> None:
    _, provoked, _ = load("monitoring/alerts.test.yaml")["tests"]
    samples = provoked["promql_expr_test"][0]["exp_samples"]
    named = [re.findall(r'"(\w+)"', sample["labels"])[0] for sample in samples]
    assert sorted(named) == sorted(rule["alert"] for rule in alerts())


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is missing (apt-get install prometheus): the alert rules were not run")
    return found


def test_the_rules_do_what_their_tests_say(promtool: str) -> None:
    for arguments in (
        ["check", "rules", "alerts.yaml"],
        ["check", "config", "--syntax-only", "prometheus.yaml"],
        ["test", "rules", "alerts.test.yaml"],
    ):
        ran = subprocess.run([promtool, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_promtool_can_read_the_queries_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    queries = {expression for expression, _ in dashboard_queries()}
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, expression in enumerate(sorted(queries))
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    ran = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_the_containers_find_each_other_and_their_files() -> None:
    services = load("monitoring.yaml")["services"]
    for service in services.values():
        for volume in service.get("volumes", ()):
            source, _, rest = volume.partition(":")
            assert not source.startswith(".") or ((ROOT / "docker" / source).is_file() and rest.endswith(":ro"))
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    scraped = [
        each for config in load("monitoring/prometheus.yaml")["scrape_configs"] for each in config["static_configs"]
    ]
    hosts = {target.partition(":")[0] for each in scraped for target in each["targets"]}
    assert hosts - {"host.docker.internal"} <= services.keys()
    assert load("monitoring/grafana/datasource.yaml")["datasources"][0]["url"] == "http://prometheus:9090"
    folder = load("monitoring/grafana/dashboards.yaml")["providers"][0]["options"]["path"]
    assert f"./monitoring/dashboard.json:{folder}/dashboard.json:ro" in services["grafana"]["volumes"]


def test_nobody_can_log_in_to_grafana_with_the_usual_password() -> None:
    environment = load("monitoring.yaml")["services"]["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"


def test_the_versions_of_all_images_are_pinned() -> None:
    images = [service["image"] for service in load("monitoring.yaml")["services"].values() if "image" in service]
    assert len(images) == 2
    assert all(re.fullmatch(r"\w+/\w+:v?\d+\.\d+\.\d+", image) for image in images)


def test_the_development_server_starts_as_small_as_before() -> None:
    assert load("compose.yaml")["services"].keys() == {"postgres"}


def test_the_image_of_the_metrics_is_built_from_what_is_there() -> None:
    build = load("monitoring.yaml")["services"]["metrics"]["build"]
    assert (ROOT / "docker" / build["context"]).resolve() == ROOT
    lines = (ROOT / build["dockerfile"]).read_text().splitlines()
    sources = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert sources
    assert all((ROOT / source).exists() for source in sources)
