"""Templates as text: what is accepted, and the words in which the rest is refused."""

import pytest

from preheat.kernel.errors import AwsError
from preheat.template.parameters import check, resolve_parameters
from preheat.template.read import Template, read_template

QUEUE = "Resources: {Q: {Type: AWS::SQS::Queue}}\n"


def refusal(text: str) -> str:
    with pytest.raises(AwsError) as caught:
        read_template(text)
    assert caught.value.code == "ValidationError"
    assert caught.value.status == 400
    return caught.value.message


def test_yaml_short_forms_become_long_forms():
    template = read_template(
        """
AWSTemplateFormatVersion: 2010-09-09
Conditions: {Prod: !Equals [!Ref Env, prod], Other: !Not [!Condition Prod]}
Parameters: {Env: {Type: String}}
Resources:
  Q:
    Type: AWS::SQS::Queue
    Properties:
      QueueName: !Sub "${Env}-q"
      VisibilityTimeout: !If [Prod, 60, !Ref "AWS::NoValue"]
      RedrivePolicy: {deadLetterTargetArn: !GetAtt D.Arn, maxReceiveCount: 3}
  D: {Type: AWS::SQS::Queue}
"""
    )
    properties = template.resources["Q"]["Properties"]
    assert template.body["AWSTemplateFormatVersion"] == "2010-09-09"
    assert properties["QueueName"] == {"Fn::Sub": "${Env}-q"}
    assert properties["VisibilityTimeout"] == {"Fn::If": ["Prod", 60, {"Ref": "AWS::NoValue"}]}
    assert properties["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": ["D", "Arn"]}
    assert template.section("Conditions")["Other"] == {"Fn::Not": [{"Condition": "Prod"}]}


def test_json_is_read_as_json():
    template = read_template('{"Resources": {"Q": {"Type": "AWS::SQS::Queue"}}}')
    assert template.resources["Q"]["Type"] == "AWS::SQS::Queue"


def test_dates_octal_numbers_and_keys_stay_text():
    template = read_template(QUEUE + "Mappings: {M: {2020-01-01: {on: 010}}}\n")
    assert template.section("Mappings")["M"] == {"2020-01-01": {"on": "010"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("just text", "Template format error: unsupported structure."),
        ("Description: nothing", "Template format error: At least one Resources member must be defined."),
        (QUEUE + "Resource: {}", "Invalid template property or properties [Resource]"),
        (QUEUE + "AWSTemplateFormatVersion: 2011-01-01", "unsupported value for AWSTemplateFormatVersion."),
        ("Resources: {Q: {Properties: {}}}", "[/Resources/Q] Every Resources object must contain a Type member."),
        ("Resources: {a-b: {Type: AWS::SQS::Queue}}", "Resource name a-b is non alphanumeric."),
        ("Resources: {Q: {Type: AWS::SQS::Queue, Colour: red}}", "Invalid template resource property 'Colour'"),
        (
            "Resources: {Q: {Type: AWS::SQS::Queue, DependsOn: Z}}",
            "Unresolved resource dependencies [Z] in the Resources block of the template",
        ),
        (
            "Resources: {Q: {Type: AWS::SQS::Queue, Properties: {QueueName: null}}}",
            "[/Resources/Q/Properties/QueueName] 'null' values are not allowed in templates",
        ),
        (QUEUE + "Outputs: {O: {Description: x}}", "Every Outputs member must contain a Value object"),
        (QUEUE + "Parameters: {P: {Default: 1}}", "Every Parameters object must contain a Type member."),
        (QUEUE + "Parameters: {P: {Type: Strings}}", "Unrecognized parameter type: Strings"),
        (QUEUE + "Transform: My::Macro", "No transform named My::Macro found."),
        ("Resources: {Q: &a {Type: X}, R: *a}", "YAML aliases are not allowed"),
    ],
)
def test_refusals(text, message):
    assert message in refusal(text)


def test_errors_say_where():
    assert "(line 3, column 11): unknown tag !Wat" in refusal("Resources:\n  Q:\n    Type: !Wat x\n")
    assert refusal('{"Resources": {,}}').startswith("Template format error: JSON not well-formed. (line 1, column 17)")
    assert "YAML not well-formed. (line 2, column " in refusal("Resources:\n  a: b: c\n")


def test_a_long_description_is_refused():
    assert refusal(f"Description: {'x' * 1025}\n{QUEUE}").endswith("'Description' length is greater than 1024.")
    assert read_template(f"Description: {'x' * 1024}\n{QUEUE}").description == "x" * 1024


def test_limits():
    queues = ", ".join(f"Q{number}: {{Type: AWS::SQS::Queue}}" for number in range(501))
    assert refusal(f"Resources: {{{queues}}}") == (
        "Template format error: Number of resources, 501, is greater than maximum allowed, 500"
    )


# -- parameters -----------------------------------------------------------------------------------------------------


def resolve(declared: dict, given: list | None = None, previous: dict | None = None, ssm: dict | None = None) -> dict:
    template = Template({"Parameters": declared})
    return resolve_parameters(template, given or [], previous or {}, (ssm or {}).get)


def parameter_refusal(*arguments, **named) -> str:
    with pytest.raises(AwsError) as caught:
        resolve(*arguments, **named)
    return caught.value.message


def test_values_come_from_request_previous_and_default():
    declared = {name: {"Type": "String"} for name in "AB"} | {"C": {"Type": "Number", "Default": 5}}
    given = [{"ParameterKey": "A", "ParameterValue": "x"}, {"ParameterKey": "B", "UsePreviousValue": True}]
    found = resolve(declared, given, {"B": "before"})
    assert {name: item.value for name, item in found.items()} == {"A": "x", "B": "before", "C": "5"}


def test_lists_secrets_and_ssm():
    found = resolve(
        {
            "L": {"Type": "CommaDelimitedList", "Default": "a, b"},
            "S": {"Type": "String", "NoEcho": True, "Default": "hush"},
            "P": {"Type": "AWS::SSM::Parameter::Value<List<String>>", "Default": "/x"},
        },
        ssm={"/x": "1,2"},
    )
    assert found["L"].value == ["a", "b"]
    assert found["S"].described() == {"ParameterKey": "S", "ParameterValue": "****"}
    assert found["P"].value == ["1", "2"]
    assert found["P"].described()["ResolvedValue"] == "1,2"


def test_missing_unknown_and_unfetchable_parameters():
    assert parameter_refusal({"A": {"Type": "String"}}) == "Parameters: [A] must have values"
    unknown = [{"ParameterKey": "Z", "ParameterValue": "1"}]
    assert parameter_refusal({}, unknown) == "Parameters: [Z] do not exist in the template"
    twice = [{"ParameterKey": "A", "ParameterValue": "1"}, {"ParameterKey": "A", "ParameterValue": "2"}]
    assert parameter_refusal({"A": {"Type": "String"}}, twice) == "Duplicate input parameter key: A"
    declared = {"P": {"Type": "AWS::SSM::Parameter::Value<String>", "Default": "/none"}}
    assert parameter_refusal(declared) == "Unable to fetch parameters [/none] from parameter store for this account."


@pytest.mark.parametrize(
    ("rule", "text", "message"),
    [
        ({"Type": "String", "AllowedValues": ["a", 1]}, "b", "Parameter 'P' must be one of AllowedValues"),
        ({"Type": "String", "AllowedPattern": "[a-z]+"}, "aB", "Parameter 'P' must match pattern [a-z]+"),
        ({"Type": "String", "MinLength": 3}, "ab", "Parameter 'P' must contain at least 3 characters"),
        ({"Type": "String", "MaxLength": "2"}, "abc", "Parameter 'P' must contain at most 2 characters"),
        ({"Type": "Number"}, "two", "Parameter 'P' must be a number."),
        ({"Type": "Number", "MinValue": 2}, "1", "Parameter 'P' must be a number not less than 2"),
        (
            {"Type": "Number", "MaxValue": 2, "ConstraintDescription": "keep it small"},
            "3",
            "Parameter 'P' failed to satisfy constraint: keep it small",
        ),
    ],
)
def test_constraints(rule, text, message):
    with pytest.raises(AwsError) as caught:
        check("P", rule, text)
    assert caught.value.message == message


def test_allowed_numbers_are_compared_as_text():
    check("P", {"Type": "Number", "AllowedValues": [1, 2]}, "2")
