"""Nothing accepted in silence: every member of an operation's input is known to the code or told in the README."""

from pathlib import Path

import botocore.loaders
import pytest

import preheat.services.dynamodb.service as dynamodb
import preheat.services.logs.service as logs


@pytest.mark.parametrize(("name", "module"), [("dynamodb", dynamodb), ("logs", logs)])
def test_every_member_is_known(name, module):
    model = botocore.loaders.Loader().load_service_model(name, "service-2")
    folder = Path(module.__file__).parent
    texts = [path.read_text() for path in (*folder.glob("*.py"), folder / "README.md")]
    unknown = []
    for operation in module.build(None).operations:
        shape = model["operations"][operation].get("input")
        for member in model["shapes"][shape["shape"]].get("members", {}) if shape else ():
            if not any(member in text for text in texts):
                unknown.append(f"{operation}.{member}")
    assert unknown == []
