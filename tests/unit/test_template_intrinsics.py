"""What CloudFormation's functions come to."""

import pytest

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.template.extensions import expand
from preheat.template.intrinsics import Resolver, dynamic, pseudo_parameters, references
from preheat.template.plan import Spec, check_references, dependencies, order, same
from preheat.template.resources.table import ResourceTypes


class Known:
    """One resource `Q`, one export `shared`."""

    def ref(self, logical_id):
        return {"Q": "http://q"}[logical_id]

    def get_att(self, logical_id, attribute):
        return {("Q", "Arn"): "arn:q", ("Q", "Deep.Er"): "deep"}[logical_id, attribute]

    def import_value(self, name):
        return {"shared": "imported"}[name]

    def unknown(self, value):
        return False


def resolver(**body) -> Resolver:
    pseudo = pseudo_parameters(Scope("123456789012", "eu-west-1"), "arn:stack", "mine")
    return Resolver(body, {**pseudo, "Env": "prod", "Zones": ["a", "b"], "Size": "3"}, Known())


def refusal(value, **body) -> str:
    with pytest.raises(AwsError) as caught:
        resolver(**body).resolve(value)
    return caught.value.message


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ({"Ref": "Env"}, "prod"),
        ({"Ref": "Q"}, "http://q"),
        ({"Ref": "AWS::StackName"}, "mine"),
        ({"Fn::GetAtt": ["Q", "Arn"]}, "arn:q"),
        ({"Fn::GetAtt": "Q.Deep.Er"}, "deep"),
        ({"Fn::Sub": "${Env}-${Q.Arn}-${!Literal}-${AWS::Region}"}, "prod-arn:q-${Literal}-eu-west-1"),
        ({"Fn::Sub": ["${Own}/${Env}", {"Own": {"Ref": "Q"}}]}, "http://q/prod"),
        ({"Fn::Join": ["-", ["a", {"Ref": "Env"}, 3]]}, "a-prod-3"),
        ({"Fn::Join": ["", {"Ref": "Zones"}]}, "ab"),
        ({"Fn::Split": [",", "x,y"]}, ["x", "y"]),
        ({"Fn::Select": ["1", {"Fn::Split": ["|", "x|y"]}]}, "y"),
        ({"Fn::FindInMap": ["Sizes", {"Ref": "Env"}, "n"]}, 9),
        ({"Fn::FindInMap": ["Sizes", "none", "n", {"DefaultValue": {"Ref": "Env"}}]}, "prod"),
        ({"Fn::ImportValue": "shared"}, "imported"),
        ({"Fn::Base64": "hello"}, "aGVsbG8="),
        ({"Fn::Cidr": ["10.0.0.0/16", 2, 8]}, ["10.0.0.0/24", "10.0.1.0/24"]),
        ({"Fn::GetAZs": ""}, ["eu-west-1a", "eu-west-1b", "eu-west-1c"]),
        ({"Fn::If": ["Prod", "yes", "no"]}, "yes"),
        ({"a": {"Ref": "AWS::NoValue"}, "b": [1, {"Fn::If": ["Prod", {"Ref": "AWS::NoValue"}, 2]}]}, {"b": [1]}),
        ({"Fn::Length": {"Ref": "Zones"}}, 2),
        ({"Fn::ToJsonString": {"a": {"Ref": "Env"}}}, '{"a":"prod"}'),
    ],
)
def test_functions(value, result):
    conditions = {"Prod": {"Fn::Equals": [{"Ref": "Env"}, "prod"]}}
    assert resolver(Conditions=conditions, Mappings={"Sizes": {"prod": {"n": 9}}}).resolve(value) == result


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"Fn::FindInMap": ["M", "a", "b"]}, "Template error: Unable to get mapping for M::a::b"),
        ({"Fn::Select": [5, ["a"]]}, "Template error: Fn::Select  cannot select nonexistent value at index 5"),
        ({"Fn::Sub": "${a b}"}, "variable names in Fn::Sub syntax must contain only alphanumeric characters"),
        ({"Fn::Nope": 1}, "Encountered unsupported function: Fn::Nope Supported functions are: [Fn::And,"),
        ({"Fn::If": ["Gone", 1, 2]}, "Unresolved condition dependency Gone"),
        ({"Fn::Join": [1, []]}, "every Fn::Join object requires two parameters"),
        ({"Fn::Transform": {"Name": "AWS::Include"}}, "Preheat does not carry out Fn::Transform (AWS::Include)"),
    ],
)
def test_misused_functions(value, message):
    assert message in refusal(value)


def test_conditions_combine_and_circles_are_refused():
    conditions = {
        "A": {"Fn::Equals": [{"Ref": "Size"}, 3]},
        "B": {"Fn::Not": [{"Condition": "A"}]},
        "C": {"Fn::Or": [{"Condition": "B"}, {"Fn::And": [{"Condition": "A"}, {"Fn::Equals": ["x", "x"]}]}]},
    }
    assert resolver(Conditions=conditions).evaluate_conditions() == {"A": True, "B": False, "C": True}
    circle = {"A": {"Fn::Not": [{"Condition": "B"}]}, "B": {"Fn::Not": [{"Condition": "A"}]}}
    with pytest.raises(AwsError, match="Circular dependency"):
        resolver(Conditions=circle).evaluate_conditions()


def test_for_each_writes_out_every_element():
    body = {
        "Resources": {
            "Fn::ForEach::Queues": [
                "Name",
                {"Ref": "Zones"},
                {"Queue${Name}": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Fn::Sub": "q-${Name}"}}}},
            ]
        }
    }
    assert expand(body, resolver())["Resources"] == {
        f"Queue{name}": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Fn::Sub": f"q-{name}"}}}
        for name in "ab"
    }


def test_dynamic_references_are_read_where_they_stand():
    def read(service, reference):
        return f"<{service} {reference}>"

    value = {"a": ["x{{resolve:ssm:/p:1}}y", "{{resolve:secretsmanager:s:SecretString:k}}"], "b": 3}
    assert dynamic(value, read) == {"a": ["x<ssm /p:1>y", "<secretsmanager s:SecretString:k>"], "b": 3}


def test_references_follow_the_branch_that_is_taken():
    value = {"Fn::If": ["Prod", {"Ref": "A"}, {"Fn::GetAtt": ["B", "Arn"]}]}
    assert {item.name for item in references(value)} == {"A", "B"}
    assert {item.name for item in references(value, {"Prod": False})} == {"B"}


# -- plan -----------------------------------------------------------------------------------------------------------


def spec(resources: dict, **more) -> Spec:
    return Spec("", {"Resources": resources, **more})


def queue(**properties) -> dict:
    return {"Type": "AWS::SQS::Queue", "Properties": properties}


def test_order_follows_references_and_depends_on():
    resources = {
        "A": {**queue(), "DependsOn": ["B"]},
        "B": queue(RedrivePolicy={"deadLetterTargetArn": {"Fn::GetAtt": ["C", "Arn"]}}),
        "C": queue(QueueName={"Fn::Sub": "x-${AWS::Region}"}),
    }
    graph = dependencies(spec(resources))
    assert graph == {"A": ["B"], "B": ["C"], "C": []}
    assert order(graph) == ["C", "B", "A"]


def test_circles_are_named():
    resources = {"A": queue(X={"Ref": "B"}), "B": queue(X={"Fn::Sub": "${A.Arn}"}), "C": queue(X={"Ref": "A"})}
    with pytest.raises(AwsError) as caught:
        dependencies(spec(resources))
    assert caught.value.message == "Circular dependency between resources: [A, B]"


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"X": {"Ref": "Nope"}}, "Unresolved resource dependencies [Nope] in the Resources block of the template"),
        ({"X": {"Fn::GetAtt": ["Nope", "Arn"]}}, "instance of Fn::GetAtt references undefined resource Nope"),
        ({"X": {"Fn::GetAtt": ["Q", "Colour"]}}, "Q does not support attribute type Colour in Fn::GetAtt"),
        ({"X": {"Fn::Sub": "${Nope.Arn}"}}, "Unresolved resource dependencies [Nope]"),
    ],
)
def test_names_must_be_declared(properties, message):
    with pytest.raises(AwsError) as caught:
        check_references({"Resources": {"Q": queue(), "R": queue(**properties)}}, {}, ResourceTypes())
    assert message in caught.value.message


def test_a_resource_whose_condition_fails_cannot_be_used():
    resources = {"A": queue(X={"Ref": "B"}), "B": {**queue(), "Condition": "No"}}
    with pytest.raises(AwsError, match=r"Unresolved resource dependencies \[B\]"):
        dependencies(Spec("", {"Resources": resources}, conditions={"No": False}))


def test_values_are_compared_as_cloudformation_does():
    assert same({"a": "5", "b": [True]}, {"a": 5, "b": ["true"]})
    assert not same({"a": 5}, {"a": 5, "b": 1})
    assert not same("5", ["5"])
