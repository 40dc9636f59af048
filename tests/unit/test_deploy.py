"""The alert rules and the dashboard in deploy/: valid, about metrics that exist, and alarms that go off."""

import itertools
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from options import ROOT

from gateway import metrics

ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dicom-gateway.json"
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def rules():
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels():
    return json.loads(DASHBOARD.read_text())["panels"]


def queries():
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def exported():
    """Give the names of all metrics: what processes count, and what is looked up at each scrape."""
    counted = [one for one in vars(metrics).values() if isinstance(one, metrics.Series)]
    names = {one.name + suffix for one in counted for suffix in SUFFIXES[one.kind]}
    scrape = (ROOT / "gateway" / "admin" / "scrape.py").read_text()
    names |= set(re.findall(r'"(dicom_gateway_\w+)"', scrape))
    return names | {f"dicom_gateway_spool_{name}" for name in re.findall(r'\("(\w+)", ', scrape)}


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_alert_rules_are_valid():
    assert f"{len(rules())} rules found" in promtool("check", "rules", str(ALERTS))


def test_the_queries_of_the_dashboard_are_valid(tmp_path):
    recorded = [
        {"record": f"panel:query:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries())
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    assert f"{len(recorded)} rules found" in promtool("check", "rules", str(path))


@pytest.mark.parametrize("query", [*queries(), *(rule["expr"] for rule in rules())])
def test_every_query_is_about_metrics_that_exist(query):
    assert set(re.findall(r"dicom_gateway_\w+", query)) <= exported()


def test_the_panels_have_ids_of_their_own_and_do_not_overlap():
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for one, other in itertools.combinations([panel["gridPos"] for panel in panels()], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels())


# series that make an alert go off, and after how many minutes it has to
ALARMS = {
    "DicomGatewayDown": ({'up{job="dicom-gateway"}': "0x60"}, 3),
    "DicomGatewayNotListening": ({"dicom_gateway_listening": "0x60"}, 2),
    "DicomGatewayRefusesStorage": ({"dicom_gateway_spool_takes_instances": "0x60"}, 2),
    "DicomGatewaySpoolUnreadable": ({"dicom_gateway_spool_readable": "0x60"}, 2),
    "DicomGatewaySpoolFills": (
        {"dicom_gateway_spool_free_bytes": "10000-100x100", "dicom_gateway_spool_size_bytes": "20000x100"},
        60,
    ),
    "DicomGatewaySignInRefused": ({'dicom_gateway_archive_sign_in_refused{archive="a"}': "1x60"}, 3),
    "DicomGatewayArchiveDown": ({'dicom_gateway_archive_up{archive="a"}': "0x60"}, 11),
    "DicomGatewayInstancesWait": ({'dicom_gateway_outbox_oldest_undelivered_seconds{archive="a"}': "1700+60x60"}, 10),
    "DicomGatewaySetAside": ({'dicom_gateway_outbox_instances{archive="a",state="set aside"}': "1x60"}, 2),
    "DicomGatewayHeldLong": ({'dicom_gateway_outbox_instances{archive="a",state="held"}': "1x2000"}, 1450),
    "DicomGatewayRejectionsWait": ({'dicom_gateway_rejected_instances{archive="a",state="deleting"}': "1x100"}, 61),
    "DicomGatewayProcessDown": ({'dicom_gateway_process_up{process="delivery"}': "0x60"}, 2),
    "DicomGatewayProcessRestarts": ({'dicom_gateway_process_starts_total{process="delivery"}': "1+1x60"}, 20),
    "DicomGatewayOperationsFail": (
        {
            'dicom_gateway_operations_total{peer="CT",service="C-STORE",status="A700"}': "0+1x60",
            'dicom_gateway_operations_total{peer="CT",service="C-STORE",status="0000"}': "0+4x60",
            'dicom_gateway_operations_total{peer="CT",service="C-FIND",status="0000"}': "0+4x60",
        },
        40,
    ),
    "DicomGatewayCallersRejected": ({'dicom_gateway_associations_rejected_total{reason="x"}': "0+5x60"}, 40),
}


def test_every_alert_goes_off_and_does_not_when_all_is_well(tmp_path: Path):
    assert set(ALARMS) == {rule["alert"] for rule in rules()}
    well = {
        'up{job="dicom-gateway"}': "1x1500",
        "dicom_gateway_listening": "2x1500",
        "dicom_gateway_spool_takes_instances": "1x1500",
        "dicom_gateway_spool_readable": "1x1500",
        "dicom_gateway_spool_free_bytes": "10000x1500",
        "dicom_gateway_spool_size_bytes": "20000x1500",
        'dicom_gateway_archive_sign_in_refused{archive="a"}': "0x1500",
        'dicom_gateway_archive_up{archive="a"}': "1x1500",
        'dicom_gateway_outbox_oldest_undelivered_seconds{archive="a"}': "60x1500",
        'dicom_gateway_outbox_instances{archive="a",state="set aside"}': "0x1500",
        'dicom_gateway_outbox_instances{archive="a",state="held"}': "0x1500",
        'dicom_gateway_rejected_instances{archive="a",state="deleting"}': "0x1500",
        'dicom_gateway_process_up{process="delivery"}': "1x1500",
        'dicom_gateway_process_starts_total{process="delivery"}': "1x1500",
        'dicom_gateway_operations_total{peer="CT",service="C-STORE",status="0000"}': "0+9x1500",
        'dicom_gateway_operations_total{peer="CT",service="C-STORE",status="B000"}': "0+9x1500",
    }
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
                    "eval_time": f"{minutes}m",
                    "exp_samples": [{"labels": "{}", "value": expected}],
                }
            ],
        }
        for alert, (bad, minutes) in ALARMS.items()
        for series, expected in ((bad, 1), (well, 0))
    ]
    path = tmp_path / "test.yaml"
    path.write_text(
        yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}, width=10_000)
    )
    promtool("test", "rules", str(path))
