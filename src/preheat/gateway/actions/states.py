"""Rules of Step Functions."""

from preheat.gateway.actions.need import Resources, Rule, anything, both, each, given, on, pass_role, when
from preheat.services.contract import Context, Params
from preheat.services.stepfunctions import repository


def _named(kind: str) -> Resources:
    return lambda ctx, params: [ctx.scope.arn("states", f"{kind}:{params['name']}")]


def _of_token(ctx: Context, params: Params) -> list[str]:
    """The machine whose task the token is of."""
    frame = repository.frame_of_token(ctx.db, params["taskToken"])
    found = None if frame is None else repository.execution(ctx.db, frame.execution)
    return ["*"] if found is None else [found.machine_arn]


def _listed(ctx: Context, params: Params) -> list[str]:
    return [params.get("stateMachineArn") or "*"]


def states_rules() -> dict[str, Rule]:
    passed = pass_role("roleArn", "states.amazonaws.com")
    machine, execution = given("stateMachineArn"), given("executionArn")
    machine_tags = when("tags", on("states:TagResource", _named("stateMachine")))
    activity_tags = when("tags", on("states:TagResource", _named("activity")))
    return {
        "CreateStateMachine": both(on("states:CreateStateMachine", _named("stateMachine")), passed, machine_tags),
        "UpdateStateMachine": both(on("states:UpdateStateMachine", machine), passed),
        **each("states", machine, "DeleteStateMachine DescribeStateMachine StartExecution StartSyncExecution"),
        **each(
            "states", execution,
            "StopExecution DescribeExecution GetExecutionHistory DescribeStateMachineForExecution",
        ),
        **each("states", _listed, "ListExecutions"),
        **each("states", anything, "ListStateMachines ListActivities ValidateStateMachineDefinition"),
        "CreateActivity": both(on("states:CreateActivity", _named("activity")), activity_tags),
        **each("states", given("activityArn"), "DeleteActivity DescribeActivity GetActivityTask"),
        **each("states", _of_token, "SendTaskSuccess SendTaskFailure SendTaskHeartbeat"),
        **each("states", given("resourceArn"), "TagResource UntagResource ListTagsForResource"),
    }  # fmt: skip
