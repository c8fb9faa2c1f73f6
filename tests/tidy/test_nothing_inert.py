"""Every member of the input of every implemented operation is handled by its service's code, or stands in
`services/fidelity.json` with what becomes of it. A new botocore cannot bring a member that is accepted in silence."""

import json
import re
from pathlib import Path

import botocore.session
import pytest

from preheat.cli.inventory import inventory

SOURCE = Path(__file__).parents[2] / "src" / "preheat"
FOLDERS = {
    "lambda": "services/awslambda",
    "bedrock-runtime": "services/bedrock_runtime",
    "bedrock-agent-runtime": "services/bedrock_agent_runtime",
    "cloudformation": "template",
}
LEDGER = json.loads((SOURCE / "services" / "fidelity.json").read_text())


@pytest.fixture(scope="module")
def implemented():
    return {name: operations for name, operations, _ in inventory() if operations}


@pytest.fixture(scope="module")
def models():
    session = botocore.session.get_session()
    return session.get_service_model


def handled(service):
    folder = SOURCE / FOLDERS.get(service, f"services/{service}")
    text = "\n".join(path.read_text() for path in folder.rglob("*.py"))
    return lambda member: re.search(rf"[\"']{re.escape(member)}[\"']|\b{re.escape(member)}=", text) is not None


def members(models, service, operation):
    shape = models(service).operation_model(operation).input_shape
    return list(shape.members) if shape else []


def test_every_input_member_is_handled_or_accounted_for(implemented, models):
    silent = []
    for service, operations in implemented.items():
        known = handled(service)
        for operation in operations:
            for member in members(models, service, operation):
                if not known(member) and member not in LEDGER.get(service, {}):
                    silent.append(f"{service}:{operation} {member}")
    assert not silent, "\n".join(silent)


def test_the_ledger_names_real_members_and_says_why(implemented, models):
    for service, rows in LEDGER.items():
        real = {member for operation in implemented[service] for member in members(models, service, operation)}
        assert set(rows) <= real, (service, set(rows) - real)
        for member, (effect, why) in rows.items():
            assert effect in ("acts", "approximates", "ignored") and len(why) > 10, (service, member)
