"""AWS Step Functions: state machines in the Amazon States Language, and their executions."""

from pathlib import Path

from preheat.services.contract import Context, Loop, Operation, Platform
from preheat.services.stepfunctions import domain, repository
from preheat.services.stepfunctions.executions import Executions
from preheat.services.stepfunctions.machines import Machines
from preheat.services.stepfunctions.running import Running
from preheat.services.stepfunctions.workers import Workers


class StepFunctionsService:
    """`running` takes the answers of tasks (`triggers/states_tasks.py`)."""

    name = "stepfunctions"
    schema = (Path(__file__).parent / "schema.sql").read_text()

    def __init__(self) -> None:
        self.running = Running()
        self.loops: tuple[Loop, ...] = (self.running,)
        self.operations: dict[str, Operation] = {
            **Machines(self.running).operations,
            **Executions(self.running).operations,
            **Workers(self.running).operations,
        }

    def wait_for(self, ctx: Context, frame: int, attempt: int, execution_arn: str) -> None:
        """Let a task end with an execution that it started. Raises StateMachineTypeNotSupported for an express one."""
        scope, rest = domain.named(execution_arn, "execution", "express")
        machine, _, name = rest.partition(":")
        found = repository.find_execution(ctx.db, scope, machine, name)
        if found is None:
            raise domain.type_not_supported()
        repository.change_execution(ctx.db, found.row, waiter=frame, waiter_attempt=attempt)


def build(platform: Platform) -> StepFunctionsService:
    service = StepFunctionsService()
    platform.db.on_undo.append(service.running.forget)
    return service
