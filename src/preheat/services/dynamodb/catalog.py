"""Which tables there are: definitions by name, kept in memory as the database has them."""

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.services.contract import Context
from preheat.services.dynamodb import repository
from preheat.services.dynamodb.domain import Table
from preheat.services.dynamodb.values import invalid

CACHED_TABLES = 1_024


def table_name(params: dict, member: str = "TableName") -> str:
    """The table's name of a request, which may give an ARN. Raises ValidationException."""
    name = params.get(member)
    if name is None:
        raise invalid(
            "1 validation error detected: Value null at 'tableName' failed to satisfy constraint: "
            "Member must not be null"
        )
    return name.rpartition("/")[2] if name.startswith("arn:") else name


class Catalog:
    """Reads definitions through a cache. A definition that the running transaction changed is read from the database
    until that transaction has committed, so a rollback leaves nothing wrong behind."""

    def __init__(self) -> None:
        self._tables: dict[tuple[Scope, str], Table] = {}
        self._unsettled: set[tuple[Scope, str]] = set()

    def find(self, ctx: Context, name: str) -> Table | None:
        place = (ctx.scope, name)
        table = self._tables.get(place)
        if table is None:
            table = repository.load_table(ctx.db, ctx.scope, name)
            if table is not None and place not in self._unsettled:
                if len(self._tables) >= CACHED_TABLES:
                    self._tables.clear()
                self._tables[place] = table
        return table

    def require(self, ctx: Context, params: dict) -> Table:
        """The table that a request names. Raises ResourceNotFoundException."""
        table = self.find(ctx, table_name(params))
        if table is None:
            raise AwsError("ResourceNotFoundException", "Requested resource not found")
        return table

    def describe(self, ctx: Context, params: dict) -> Table:
        """The same for the operations on tables, whose error names the table."""
        name = table_name(params)
        table = self.find(ctx, name)
        if table is None:
            raise AwsError("ResourceNotFoundException", f"Requested resource not found: Table: {name} not found")
        return table

    def changed(self, ctx: Context, scope: Scope, name: str) -> None:
        """To be called with every write of a definition."""
        place = (scope, name)
        self._tables.pop(place, None)
        self._unsettled.add(place)
        ctx.db.after_commit(lambda: self._unsettled.discard(place))
