"""Provisioned concurrency: the rules and words of the API, what the executor is told, and the pool's keeping of it."""

import json
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preheat.execution.contract import Invocation, Provisioning, Throttled
from preheat.execution.pool import PoolLimits
from preheat.execution.workers.contract import Exit
from preheat.execution.workers.scripted import InitScript, Script
from preheat.kernel.errors import AwsError
from tests.support.functions import LambdaWorld, make_zip
from tests.unit.test_execution_pool import BEHAVIOURS, MIB, SPEC, World

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
ONE = replace(SPEC, arn=f"{ARN}f", version="1")
NEEDS = "Specified ConcurrentExecutions for function "


# -- the API ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def world():
    world = LambdaWorld()
    world.create()
    for number in (1, 2, 3):
        world("lambda", "UpdateFunctionCode", FunctionName="f", ZipFile=make_zip({"app.py": f"N = {number}"}))
        world("lambda", "PublishVersion", FunctionName="f")
    yield world
    assert world.defects == []


def put(world, qualifier, count, name="f"):
    return world(
        "lambda", "PutProvisionedConcurrencyConfig", FunctionName=name, Qualifier=qualifier,
        ProvisionedConcurrentExecutions=count,
    )  # fmt: skip


def get(world, qualifier, name="f"):
    return world("lambda", "GetProvisionedConcurrencyConfig", FunctionName=name, Qualifier=qualifier)


def delete(world, qualifier):
    return world("lambda", "DeleteProvisionedConcurrencyConfig", FunctionName="f", Qualifier=qualifier)


def alias(world, name, version, **more):
    return world("lambda", "CreateAlias", FunctionName="f", Name=name, FunctionVersion=version, **more)


def move(world, name, version, **more):
    return world("lambda", "UpdateAlias", FunctionName="f", Name=name, FunctionVersion=version, **more)


def refused(call, *arguments, **options):
    with pytest.raises(AwsError) as caught:
        call(*arguments, **options)
    return caught.value.status, caught.value.code, caught.value.message


def told(world):
    return world.executor.asked[-1]


def test_put_answers_in_progress_and_get_says_how_far_it_is(world):
    first = put(world, "1", 5)
    assert (first["Status"], first["RequestedProvisionedConcurrentExecutions"]) == ("IN_PROGRESS", 5)
    assert first["AllocatedProvisionedConcurrentExecutions"] == first["AvailableProvisionedConcurrentExecutions"] == 0
    assert "StatusReason" not in first and first["LastModified"].endswith("+0000")
    found = get(world, "1")
    assert (found["Status"], found["AvailableProvisionedConcurrentExecutions"]) == ("READY", 5)
    assert told(world) == [("f:1", "1", 5)]


def test_what_may_not_be_provisioned(world):
    invalid = (400, "InvalidParameterValueException")
    unpublished = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
    assert refused(put, world, "$LATEST", 1) == (*invalid, unpublished)
    assert refused(get, world, "$LATEST")[2] == refused(delete, world, "$LATEST")[2] == (
        "The function resource provided must be an alias or a published version."
    )
    alias(world, "edge", "$LATEST")
    assert refused(put, world, "edge", 1) == (*invalid, unpublished)
    assert refused(put, world, "9", 1) == (404, "ResourceNotFoundException", f"Function not found: {ARN}f:9")
    assert refused(put, world, "live", 1)[2] == f"Cannot find alias arn: {ARN}f:live"
    assert refused(put, world, "1", 1, "none")[:2] == (404, "ResourceNotFoundException")
    assert refused(put, world, "1", 0)[1:] == (
        "ValidationException",
        "1 validation error detected: Value '0' at 'provisionedConcurrentExecutions' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1",
    )
    assert refused(get, world, "1") == (
        404,
        "ProvisionedConcurrencyConfigNotFoundException",
        "No Provisioned Concurrency Config found for this function",
    )
    assert delete(world, "1") == {}
    world.create("snap", SnapStart={"ApplyOn": "PublishedVersions"}, Publish=True)
    assert refused(put, world, "1", 1, "snap")[:2] == invalid


def test_a_version_is_provisioned_once(world):
    alias(world, "live", "1"), alias(world, "other", "1")
    put(world, "live", 1)
    conflict = (409, "ResourceConflictException")
    assert refused(put, world, "1", 1) == (*conflict, "Version is pointed by a Provisioned Concurrency alias")
    already = "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
    assert refused(put, world, "other", 1) == (*conflict, already)
    put(world, "2", 1)
    assert refused(move, world, "live", "2") == (*conflict, already)
    assert world("lambda", "GetAlias", FunctionName="f", Name="live")["FunctionVersion"] == "1"
    assert refused(move, world, "live", "$LATEST")[1] == "InvalidParameterValueException"


def test_room_in_the_reservation_and_in_the_account(world):
    put(world, "1", 500)
    assert refused(put, world, "2", 401)[2] == NEEDS + (
        "decreases account's UnreservedConcurrentExecution below its minimum value of [100]."
    )
    assert refused(put, world, "2", 501)[2] == NEEDS + "is greater than account's unreserved concurrency [500]."
    put(world, "2", 400)
    world.create("g")
    reserve = partial(world, "lambda", "PutFunctionConcurrency")
    assert refused(reserve, FunctionName="g", ReservedConcurrentExecutions=1)[2] == (
        "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below "
        "its minimum value of [100]."
    )
    assert refused(reserve, FunctionName="f", ReservedConcurrentExecutions=899)[2] == (
        " ReservedConcurrentExecutions  899 should not be lower than function's total provisioned concurrency [900]."
    )
    reserve(FunctionName="f", ReservedConcurrentExecutions=900)
    assert refused(put, world, "2", 401)[2] == (
        "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"
    )
    put(world, "2", 1)
    limits = world("lambda", "GetAccountSettings")["AccountLimit"]
    assert (limits["ConcurrentExecutions"], limits["UnreservedConcurrentExecutions"]) == (1000, 100)
    world("lambda", "DeleteFunctionConcurrency", FunctionName="f")
    assert world("lambda", "GetAccountSettings")["AccountLimit"]["UnreservedConcurrentExecutions"] == 499


def test_the_list_comes_in_pages(world):
    alias(world, "live", "3")
    put(world, "1", 1), put(world, "live", 2)
    ask = partial(world, "lambda", "ListProvisionedConcurrencyConfigs", FunctionName="f", MaxItems=1)
    first = ask()
    assert [row["FunctionArn"] for row in first["ProvisionedConcurrencyConfigs"]] == [f"{ARN}f:1"]
    second = ask(Marker=first["NextMarker"])
    assert [row["FunctionArn"] for row in second["ProvisionedConcurrencyConfigs"]] == [f"{ARN}f:live"]
    assert "NextMarker" not in second and second["ProvisionedConcurrencyConfigs"][0]["Status"] == "READY"
    assert refused(partial(world, "lambda", "ListProvisionedConcurrencyConfigs"), FunctionName="none")[0] == 404


def test_a_weighted_alias_is_split_by_weight(world):
    alias(world, "live", "1", RoutingConfig={"AdditionalVersionWeights": {"2": 0.25}})
    put(world, "live", 10)
    assert sorted(told(world)) == [("f:live", "1", 7), ("f:live", "2", 3)]
    assert get(world, "live")["AvailableProvisionedConcurrentExecutions"] == 10
    move(world, "live", "1", RoutingConfig={"AdditionalVersionWeights": {}})
    assert told(world) == [("f:live", "1", 10)]


def test_a_failed_move_leaves_the_traffic_where_it_is(world):
    alias(world, "live", "1")
    put(world, "live", 2)
    world.executor.unprovisionable["f"] = "FUNCTION_ERROR_INIT_FAILURE"
    world.executor.kept[f"{ARN}f", "1"] = replace(world.executor.kept[f"{ARN}f", "1"])
    held = move(world, "live", "2", RoutingConfig={"AdditionalVersionWeights": {}})
    assert "RoutingConfig" not in held
    held = world("lambda", "GetAlias", FunctionName="f", Name="live")
    assert held["RoutingConfig"] == {"AdditionalVersionWeights": {"1": 1.0}}
    assert {(version, count) for _, version, count in told(world)} == {("1", 2), ("2", 2)}
    found = get(world, "live")
    assert (found["Status"], found["StatusReason"]) == ("FAILED", "FUNCTION_ERROR_INIT_FAILURE")
    back = move(world, "live", "1")
    assert "RoutingConfig" not in back and told(world) == [("f:live", "1", 2)]


def test_what_it_hangs_on_takes_it_away(world):
    alias(world, "live", "1")
    put(world, "live", 1), put(world, "2", 1)
    world("lambda", "DeleteFunction", FunctionName="f", Qualifier="2")
    assert told(world) == [("f:live", "1", 1)]
    world("lambda", "DeleteAlias", FunctionName="f", Name="live")
    assert told(world) == [] and world("lambda", "ListProvisionedConcurrencyConfigs", FunctionName="f")[
        "ProvisionedConcurrencyConfigs"
    ] == []
    put(world, "3", 1)
    world("lambda", "DeleteFunction", FunctionName="f")
    assert told(world) == []


def test_a_refused_put_leaves_what_was(world):
    put(world, "1", 3)
    refused(put, world, "1", 1_000)
    assert get(world, "1")["RequestedProvisionedConcurrentExecutions"] == 3 and told(world) == [("f:1", "1", 3)]


def test_scaling_sets_it_through_the_service(world):
    def scale(ctx):
        return world.functions.set_provisioned(ctx, "f", "1", 4)

    replies = []
    world.machine.perform(scale, replies.append)
    world.settle()
    assert replies[0].output["Status"] == "IN_PROGRESS" and told(world) == [("f:1", "1", 4)]


# -- the pool ---------------------------------------------------------------------------------------------------------


class Kept(World):
    """A pool with provisioned concurrency of version 1; `news` counts its changes."""

    def __init__(self, **limits) -> None:
        super().__init__(PoolLimits(**limits))
        self.news = 0
        self.kinds: list[str] = []
        start = self.factory.start

        def note(plan, listener, mould=None):
            self.kinds.append(plan.variables["AWS_LAMBDA_INITIALIZATION_TYPE"])
            return start(plan, listener, mould)

        self.factory.start = note

    def keep(self, count, token="a", spec=ONE) -> None:
        wanted = [Provisioning(spec, count, "f:live", token)] if count else []
        self.pool.provision(spec.arn, wanted, self._changed)

    def _changed(self) -> None:
        self.news += 1

    @property
    def state(self):
        found = self.pool.provisioned(ONE.arn)["1"]
        return found.status, found.allocated, found.available

    def metrics(self, name, **dimensions):
        """(count of values, their sum, their maximum) of one metric so far."""
        wanted = tuple(sorted(dimensions.items()))
        for (series, _), sample in self.taken.items():
            if series.name == name and series.dimensions == wanted:
                return sample.count, sample.total, sample.maximum
        return None

    def take(self) -> None:
        self.advance(2.0)
        self.taken = self.pool.meter.take()


def test_none_is_usable_before_all_are_ready():
    world = Kept()
    inits = iter([InitScript(1.0), InitScript(5.0)])
    world.init = None
    world.factory._initialise = lambda plan: world.init or next(inits)
    world.keep(2)
    assert world.state == ("IN_PROGRESS", 0, 0) and world.kinds == ["provisioned-concurrency"] * 2
    world.advance(2.0)
    assert world.state == ("IN_PROGRESS", 1, 0)
    world.init = InitScript()
    world.start(ONE)
    assert world.kinds[-1] == "on-demand"
    world.advance(4.0)
    assert world.state == ("READY", 2, 2) and world.news == 1
    world.start(ONE), world.start(ONE)
    assert world.factory.started == 3


def test_no_init_duration_in_the_report_and_never_reaped():
    world = Kept()
    world.init = InitScript(0.5)
    world.keep(1)
    world.advance(1.0)
    assert world.messages()[0].startswith("INIT_START ")
    assert world.messages()[1] == "INIT_REPORT Init Duration: 500.00 ms\tPhase: init\tStatus: success"
    world.advance(5_000.0)
    assert world.state == ("READY", 1, 1)
    outcomes = world.start(ONE)
    world.advance(1.1)
    assert outcomes[0].init_ms is None and "Init Duration" not in world.messages()[-1]
    assert world.factory.started == 1


@pytest.mark.parametrize(
    "init",
    [InitScript(0.1, "Runtime.ImportModuleError", b"{}"), InitScript(0.1, exit=Exit(status=1)), InitScript(1_000.0)],
)
def test_an_initialisation_that_fails_ends_the_allocation(init):
    world = Kept()
    scripts = iter([InitScript(0.05), init, InitScript(500.0)])
    world.factory._initialise = lambda plan: next(scripts)
    world.keep(3)
    world.advance(131.0)
    found = world.pool.provisioned(ONE.arn)["1"]
    assert (found.status, found.reason) == ("FAILED", "FUNCTION_ERROR_INIT_FAILURE") and world.news == 1
    assert world.pool.environments() == [] and world.factory.workers == set()
    assert found.requested == 3 and world.pool.gate_of(ONE).claimed == 0
    world.factory._initialise = lambda plan: InitScript()
    world.keep(3)
    assert world.state == ("FAILED", 0, 0), "the same request is not tried again by itself"
    world.keep(3, token="b")
    world.advance(0.1)
    assert world.state == ("READY", 3, 3)


def test_an_increase_that_fails_keeps_what_there_was():
    world = Kept()
    world.keep(2)
    world.advance(0.1)
    world.init = InitScript(0.1, exit=Exit(status=1))
    world.keep(4, token="b")
    assert world.state == ("IN_PROGRESS", 2, 2)
    world.advance(1.0)
    assert world.state == ("FAILED", 2, 2) and len(world.pool.environments()) == 2
    assert world.pool.gate_of(ONE).claimed == 2


@pytest.mark.parametrize("fate", [Script(0.2, exit=Exit(status=1)), Script(60.0), Script(1.0, memory_bytes=900 * MIB)])
def test_what_crashes_or_times_out_is_replaced(fate):
    world = Kept()
    world.keep(2)
    world.advance(0.1)
    world.script = lambda payload: fate
    outcomes = world.start(ONE)
    world.advance(4.0)
    assert outcomes[0].error is not None
    assert world.state == ("READY", 2, 2) and world.kinds == ["provisioned-concurrency"] * 3
    assert world.pool.usage().by_function == {}


def test_one_that_dies_idle_is_replaced():
    world = Kept()
    world.keep(1)
    world.advance(0.1)
    (environment,) = world.pool.environments()
    environment.worker.kill("from outside")
    world.advance(0.2)
    assert world.state == ("READY", 0, 0)
    world.advance(0.5)
    assert world.state == ("READY", 1, 1) and world.factory.started == 2


def test_replacements_that_cannot_initialise_are_given_up():
    world = Kept()
    world.keep(2)
    world.advance(0.1)
    world.script = lambda payload: Script(0.1, exit=Exit(status=1))
    world.init = InitScript(0.1, exit=Exit(status=1))
    world.start(ONE)
    world.advance(1.0)
    assert world.state == ("READY", 1, 1) and world.factory.started == 2 + 1
    world.advance(60.0)
    assert world.state == ("FAILED", 1, 1) and world.factory.started == 2 + 3


def test_a_decrease_lets_the_busy_finish():
    world = Kept()
    world.keep(3)
    world.advance(0.1)
    outcomes = [world.start(ONE) for _ in range(3)]
    world.keep(1, token="b")
    assert world.state[0] == "READY"
    assert len(world.pool.environments()) == 3
    world.advance(1.5)
    assert [one[0].error for one in outcomes] == [None] * 3
    assert len(world.pool.environments()) == 1 and world.state == ("READY", 1, 1)
    world.keep(0)
    world.advance(0.1)
    assert world.pool.environments() == [] and world.pool.provisioned(ONE.arn) == {}
    assert world.pool.gate_of(ONE).unreserved_limit == 1_000


def test_an_edit_of_watched_code_replaces_them(tmp_path):
    (tmp_path / "app.py").write_text("1")
    world = Kept()
    world.keep(2, spec=replace(ONE, code=tmp_path, watch=True))
    world.advance(0.1)
    old = set(world.pool.environments())
    (tmp_path / "app.py").write_text("22")
    world.advance(1.0)
    world.start(replace(ONE, code=tmp_path, watch=True))
    world.advance(2.0)
    assert world.state == ("READY", 2, 2) and not old & set(world.pool.environments())


def test_spillover_is_counted_and_so_is_use():
    world = Kept()
    world.keep(2)
    world.advance(0.1)
    for _ in range(3):
        world.pool.invoke(Invocation("r", ONE, b"1", invoked_arn=f"{ARN}f:live"), lambda outcome: None)
    assert world.kinds == ["provisioned-concurrency"] * 2 + ["on-demand"]
    world.take()
    live = {"FunctionName": "f", "Resource": "f:live"}
    assert world.metrics("ProvisionedConcurrencyInvocations", **live) == (2, 2.0, 1.0)
    assert world.metrics("ProvisionedConcurrencySpilloverInvocations", **live) == (1, 1.0, 1.0)
    assert world.metrics("ProvisionedConcurrencyUtilization", **live)[2] == 1.0
    assert world.metrics("ProvisionedConcurrentExecutions", FunctionName="f")[2] == 2.0
    assert world.metrics("Invocations", **live) == world.metrics("Invocations") == (3, 3.0, 1.0)
    assert world.metrics("Invocations", ExecutedVersion="1", **live) == (3, 3.0, 1.0)
    assert world.metrics("ConcurrentExecutions", FunctionName="f")[2] == 3.0
    assert world.metrics("ConcurrentExecutions")[2] == 3.0
    assert world.metrics("UnreservedConcurrentExecutions")[2] == 1.0
    assert world.metrics("ClaimedAccountConcurrency")[2] == 3.0


def test_too_many_requests_for_a_unit_spill_over():
    world = Kept()
    world.keep(1)
    world.advance(10.0)
    world.script = lambda payload: Script(0.0)
    for _ in range(11):
        world.start(ONE)
        world.advance(0.0)
    assert world.kinds == ["provisioned-concurrency", "on-demand"]


def test_invocations_errors_durations_and_throttles_are_measured():
    world = Kept(account_concurrency=2)
    world.script = lambda payload: Script(0.5, b"{}", "E" if payload == "bad" else None)
    world.start(payload="1"), world.start(payload="bad")
    refused = world.pool.invoke(Invocation("r", SPEC, b"1"), lambda outcome: None)
    assert isinstance(refused, Throttled)
    world.take()
    for dimensions in ({}, {"FunctionName": "f"}):
        assert world.metrics("Invocations", **dimensions) == (2, 2.0, 1.0)
        assert world.metrics("Errors", **dimensions) == (2, 1.0, 1.0)
        assert world.metrics("Throttles", **dimensions) == (3, 1.0, 1.0)
        assert world.metrics("Duration", **dimensions) == (2, pytest.approx(1000.0), pytest.approx(500.0))
    world.advance(400.0)
    assert world.pool.next_deadline is None, "nothing runs, so nothing is asked for"


def test_each_region_has_limits_of_its_own():
    world = Kept(account_concurrency=1)
    world.start()
    west = replace(SPEC, arn=ONE.arn.replace("us-east-1", "eu-west-1"), region="eu-west-1")
    world.start(west)
    world.pool.set_reserved(west.arn, 0)
    assert world.pool.gate_of(west).reserved == {west.arn: 0} and world.pool.gate_of(SPEC).reserved == {}


def test_provisioned_environments_leave_room_on_the_machine_and_do_not_give_way():
    world = Kept(max_environments=3)
    world.start()
    world.advance(1.5)
    world.keep(3)
    assert world.state == ("FAILED", 0, 0)
    assert "2 more provisioned environments" in world.pool.provisioned(ONE.arn)["1"].reason
    world.keep(2, token="b")
    world.advance(0.1)
    assert world.state == ("READY", 2, 2)
    outcomes = [world.start() for _ in range(3)]
    world.advance(4.0)
    assert [len(one) for one in outcomes] == [1, 1, 1] and world.state == ("READY", 2, 2)
    assert len(world.notices) == 2
    samples = {series.name: sample for (series, _), sample in world.pool.meter.take().items()
               if series.namespace == "Preheat"}  # fmt: skip
    assert samples["MachineCeilingReached"].count >= 2


def test_memory_is_a_ceiling_too_and_every_binding_is_said():
    free = {"mb": 1_000}
    world = Kept(min_free_mb=500)
    world.pool._free_mb = lambda: free["mb"]
    world.script = lambda payload: Script(3.0)
    free["mb"] = 100
    first, second = world.start(), world.start()
    assert len(world.pool.environments()) == 1, "one may always run"
    assert "less than 500 MB" in world.notices[0]
    free["mb"] = 1_000
    world.advance(0.5)
    assert len(world.pool.environments()) == 2
    world.advance(5.0)
    assert [len(first), len(second)] == [1, 1]
    free["mb"] = 100
    world.start(), world.start(), world.start()
    assert len(world.notices) == 2 and world.notices[0] != world.notices[1]
    assert world.pool.usage().bindings == 2


INITS = (InitScript(), InitScript(0.7), InitScript(0.1, exit=Exit(status=3)))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("invoke"), st.sampled_from(sorted(BEHAVIOURS))),
        st.tuples(st.just("advance"), st.sampled_from([0.0, 0.01, 0.3, 3.0, 12.0])),
        st.tuples(st.just("init"), st.sampled_from(INITS)),
        st.tuples(st.just("keep"), st.integers(0, 3)),
        st.tuples(st.just("reserve"), st.sampled_from([None, 3, 4])),
    ),
    max_size=30,
)


@settings(max_examples=100, deadline=None)
@given(steps)
def test_limits_hold_and_the_count_is_kept_whatever_happens(history):
    world = Kept(max_environments=5, account_concurrency=6)
    world.script = BEHAVIOURS.__getitem__
    running = []
    for number, (kind, value) in enumerate(history):
        if kind == "invoke":
            outcomes = []
            if world.pool.invoke(Invocation("r", ONE, value.encode(), asynchronous=True), outcomes.append) is None:
                running.append(outcomes)
        elif kind == "advance":
            world.advance(value)
        elif kind == "init":
            world.init = value
        elif kind == "keep":
            world.keep(value, token=str(number))
        else:
            world.pool.set_reserved(ONE.arn, value)
        assert len(world.pool.environments()) <= 5
        assert world.pool.gate_of(ONE).total <= 6
    world.init = InitScript()
    world.advance(400.0)
    assert [len(outcomes) for outcomes in running] == [1] * len(running)
    found = world.pool.provisioned(ONE.arn).get("1")
    if found is not None:
        assert found.status != "IN_PROGRESS"
        assert found.available == found.requested or found.status == "FAILED"
    world.keep(0)
    world.advance(400.0)
    assert world.pool.environments() == [] and world.factory.workers == set()
    assert world.pool.gate_of(ONE).in_flight == {} and world.pool.next_deadline is None


def test_the_document_of_a_throttle_names_the_reason(world):
    world.executor.set_reserved(f"{ARN}f", 0)
    with pytest.raises(AwsError) as caught:
        world("lambda", "Invoke", FunctionName="f", Payload=json.dumps({}).encode())
    assert caught.value.fields["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
