"""The parameters that expressions replaced (Expected, AttributeUpdates, KeyConditions, QueryFilter, ScanFilter,
AttributesToGet), rewritten as expressions."""

from typing import Any

from preheat.services.dynamodb.expressions import EXPRESSION_MEMBERS
from preheat.services.dynamodb.values import SET_MEMBERS, Value, invalid, invalid_parameter

LEGACY_MEMBERS = (
    "Expected",
    "AttributeUpdates",
    "KeyConditions",
    "QueryFilter",
    "ScanFilter",
    "AttributesToGet",
    "ConditionalOperator",
)
_COMPARISONS = {"EQ": "=", "NE": "<>", "LE": "<=", "LT": "<", "GE": ">=", "GT": ">"}
_ARITY = {"NULL": 0, "NOT_NULL": 0, "BETWEEN": 2, "IN": None}
_OPERATORS = (*_COMPARISONS, "NOT_NULL", "NULL", "CONTAINS", "NOT_CONTAINS", "BEGINS_WITH", "IN", "BETWEEN")


class _Writer:
    """Collects placeholders while expression text is written."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.values: dict[str, Value] = {}

    def name(self, attribute: str) -> str:
        for alias, known in self.names.items():
            if known == attribute:
                return alias
        alias = f"#n{len(self.names)}"
        self.names[alias] = attribute
        return alias

    def value(self, value: Value) -> str:
        placeholder = f":v{len(self.values)}"
        self.values[placeholder] = value
        return placeholder

    def condition(self, attribute: str, operator: str, operands: list[Value]) -> str:
        """One comparison of the old kind as text."""
        if operator not in _OPERATORS:
            raise invalid(
                f"1 validation error detected: Value '{operator}' at 'comparisonOperator' failed to satisfy "
                f"constraint: Member must satisfy enum value set: [{', '.join(_OPERATORS)}]"
            )
        arity = _ARITY.get(operator, 1)
        if (arity is None and not operands) or (arity is not None and len(operands) != arity):
            raise invalid_parameter(f"Invalid number of argument(s) for the {operator} ComparisonOperator")
        name = self.name(attribute)
        values = [self.value(operand) for operand in operands]
        if operator in _COMPARISONS:
            return f"{name} {_COMPARISONS[operator]} {values[0]}"
        if operator == "NULL":
            return f"attribute_not_exists({name})"
        if operator == "NOT_NULL":
            return f"attribute_exists({name})"
        if operator == "BETWEEN":
            return f"{name} BETWEEN {values[0]} AND {values[1]}"
        if operator == "IN":
            return f"{name} IN ({', '.join(values)})"
        if operator == "NOT_CONTAINS":
            return f"(attribute_exists({name}) AND NOT contains({name}, {values[0]}))"
        return f"{operator.lower()}({name}, {values[0]})"


def modernise(params: dict[str, Any]) -> dict[str, Any]:
    """The request with expressions in place of legacy members; the same dict when it has none. Raises
    ValidationException for mixtures and for members that do not fit."""
    if not any(member in params for member in LEGACY_MEMBERS):
        return params
    old = [member for member in LEGACY_MEMBERS if member in params]
    new = [member for member in EXPRESSION_MEMBERS if member in params]
    if new:
        raise invalid(
            "Can not use both expression and non-expression parameters in the same request: "
            f"Non-expression parameters: {{{', '.join(old)}}} Expression parameters: {{{', '.join(new)}}}"
        )
    out = {name: value for name, value in params.items() if name not in LEGACY_MEMBERS}
    writer = _Writer()
    joint = f" {params.get('ConditionalOperator', 'AND')} "
    if joint not in (" AND ", " OR "):
        raise invalid("ConditionalOperator must be AND or OR")
    if params.get("Expected"):
        out["ConditionExpression"] = joint.join(_expected(writer, params["Expected"]))
    for member, place in (
        ("KeyConditions", "KeyConditionExpression"),
        ("QueryFilter", "FilterExpression"),
        ("ScanFilter", "FilterExpression"),
    ):
        if params.get(member):
            out[place] = (" AND " if member == "KeyConditions" else joint).join(
                writer.condition(name, entry["ComparisonOperator"], entry.get("AttributeValueList", []))
                for name, entry in params[member].items()
            )
    if params.get("AttributesToGet"):
        out["ProjectionExpression"] = ", ".join(writer.name(name) for name in params["AttributesToGet"])
    if params.get("AttributeUpdates"):
        text = _updates(writer, params["AttributeUpdates"])
        if text:
            out["UpdateExpression"] = text
    if writer.names:
        out["ExpressionAttributeNames"] = writer.names
    if writer.values:
        out["ExpressionAttributeValues"] = writer.values
    return out


def _expected(writer: _Writer, expected: dict[str, dict]) -> list[str]:
    parts = []
    for name, entry in expected.items():
        operator = entry.get("ComparisonOperator")
        if operator is not None:
            if "Exists" in entry or ("Value" in entry and "AttributeValueList" in entry):
                raise invalid_parameter("Exists and ComparisonOperator cannot be used together for Attribute: " + name)
            operands = entry.get("AttributeValueList", [entry["Value"]] if "Value" in entry else [])
            parts.append(writer.condition(name, operator, operands))
        elif entry.get("Exists", True):
            if "Value" not in entry:
                raise invalid_parameter(
                    f"Value must be provided when Exists is {str(entry.get('Exists', 'null')).lower()} "
                    f"for Attribute: {name}"
                )
            parts.append(writer.condition(name, "EQ", [entry["Value"]]))
        elif "Value" in entry:
            raise invalid_parameter(f"Value cannot be used when Exists is false for Attribute: {name}")
        else:
            parts.append(writer.condition(name, "NULL", []))
    return parts


def _updates(writer: _Writer, updates: dict[str, dict]) -> str:
    sections: dict[str, list[str]] = {"SET": [], "REMOVE": [], "ADD": [], "DELETE": []}
    for attribute, entry in updates.items():
        action = entry.get("Action", "PUT")
        value = entry.get("Value")
        name = writer.name(attribute)
        if action == "DELETE" and value is None:
            sections["REMOVE"].append(name)
            continue
        if value is None:
            raise invalid_parameter(f"Only DELETE action is allowed when no attribute value is specified: {attribute}")
        if action == "PUT":
            sections["SET"].append(f"{name} = {writer.value(value)}")
        elif action == "ADD" and "L" in value:
            sections["SET"].append(
                f"{name} = list_append(if_not_exists({name}, {writer.value({'L': []})}), {writer.value(value)})"
            )
        elif action in ("ADD", "DELETE"):
            kind = next(iter(value))
            if kind not in SET_MEMBERS and not (action == "ADD" and kind == "N"):
                raise invalid_parameter(f"Action {action} is not supported for the type {kind}")
            sections[action].append(f"{name} {writer.value(value)}")
        else:
            raise invalid(
                f"1 validation error detected: Value '{action}' at 'action' failed to satisfy constraint: "
                "Member must satisfy enum value set: [ADD, DELETE, PUT]"
            )
    return " ".join(f"{section} {', '.join(parts)}" for section, parts in sections.items() if parts)
