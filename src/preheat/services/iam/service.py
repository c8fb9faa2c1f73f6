"""IAM: users, roles, groups, policies; and what the rest of the platform asks of it about an access key or a caller."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from preheat.identity import root, sessions
from preheat.identity.authentication import Authenticator
from preheat.identity.principal import Identity, Known, root_of
from preheat.kernel.http import HttpRequest
from preheat.services.contract import Context, Operation, Outcome, Params, Platform, Principal
from preheat.services.iam import entities, policies, repository
from preheat.services.iam.repository import Entity
from preheat.store.database import Database

KEY_OPERATIONS = ("CreateAccessKey", "DeleteAccessKey", "DeleteUser")
SCHEMA = (Path(__file__).parent / "schema.sql").read_text()


@dataclass(frozen=True, slots=True)
class PolicySet:
    """What `identity.policy.evaluate` needs to know of a caller: documents (None: there is no such limit), further
    names a resource policy may mean them by, and their condition keys."""

    identity: tuple[str, ...] = ()
    boundary: tuple[str, ...] | None = None
    session: tuple[str, ...] | None = None
    principals: tuple[str, ...] = ()
    context: dict[str, list[str]] = field(default_factory=dict)


class IamService:
    name = "iam"
    schema = SCHEMA

    def __init__(self, db: Database) -> None:
        self._authenticator = Authenticator()
        self._keys_exist: bool | None = None
        self.operations: dict[str, Operation] = {**entities.OPERATIONS, **policies.OPERATIONS}
        for name in KEY_OPERATIONS:
            self.operations[name] = self._forgetting(self.operations[name])
        db.on_undo.append(self._forget)

    def _forget(self) -> None:
        self._keys_exist = None

    def _forgetting(self, operation: Operation) -> Operation:
        def run(ctx: Context, params: Params) -> Outcome:
            try:
                return operation(ctx, params)
            finally:
                self._forget()

        return run

    def _any_keys(self, db: Database) -> bool:
        """Whether there is an access key; asked for every request, so it is kept until a key comes or goes."""
        if self._keys_exist is None:
            self._keys_exist = repository.any_access_keys(db)
        return self._keys_exist

    def identify(self, db: Database, request: HttpRequest, *, enforce: bool, now: float) -> Identity:
        """Who sent a request; outside a transaction. Until a user has an access key every key acts as root (unless
        `enforce`), and only sessions and presigned URLs are looked at. `now` is the clients' time. Raises AwsError in
        the words of the request's protocol."""
        strict = enforce or self._any_keys(db)
        if not strict and "x-amz-security-token" not in request.headers and not _presigned(request.query):
            return root_of(_claimed_key(request.headers.get("authorization", "")))
        return self._authenticator.authenticate(
            request, lambda access_key, token: known_key(db, access_key, token), enforce=strict, now=now
        )

    def identify_form(self, db: Database, fields: Mapping[str, str], *, enforce: bool, now: float) -> Identity:
        """Who signed a form posted to an S3 bucket, by its fields (names in lower case). Raises AwsError."""
        strict = enforce or self._any_keys(db)
        return self._authenticator.authenticate_form(
            fields, lambda access_key, token: known_key(db, access_key, token), enforce=strict, now=now
        )

    def lookup(self, ctx: Context, access_key: str, token: str | None = None) -> Known | None:
        """What is known of an access key: a user's, or with its token a session's."""
        return known_key(ctx.db, access_key, token)

    def has_users(self, ctx: Context) -> bool:
        """Whether a user has an access key: from then on credentials are checked."""
        return self._any_keys(ctx.db)

    def policies_for(self, ctx: Context, principal: Principal) -> PolicySet:
        """The policies of a caller. A root user and Preheat's own services have none and need none: the caller of
        this decides that by `principal.kind`."""
        session = _session(ctx, principal)
        if principal.kind == "user":
            entity = repository.entity(ctx.db, "user", principal.account, principal.arn.rsplit("/", 1)[-1])
        elif principal.kind == "role":
            entity = repository.entity(ctx.db, "role", principal.account, principal.arn.split("/")[1])
        else:
            entity = None
        context = _condition_keys(principal, entity, session)
        bounds = None if session is None else _session_documents(ctx, session)
        if entity is None:
            return PolicySet((), None, bounds, (), context)
        holders = [entity]
        if entity.kind == "user":
            holders += repository.groups_of(ctx.db, entity.row)
        documents: list[str] = []
        for holder in holders:
            documents += repository.inline(ctx.db, holder.row).values()
            documents += _documents(ctx, repository.attached(ctx.db, holder.row))
        boundary = None if entity.boundary is None else tuple(_documents(ctx, [entity.boundary]))
        names = (entity.arn,) if entity.kind == "role" else ()
        return PolicySet(tuple(documents), boundary, bounds, names, context)


def known_key(db: Database, access_key: str, token: str | None) -> Known | None:
    if token is not None:
        key = sessions.session_key(db, None)
        session = None if key is None else sessions.unseal(token, key)
        if key is None or session is None or session.access_key != access_key:
            return None
        return sessions.known(session, token, key)
    held = repository.access_key(db, access_key)
    if held is None:
        return root.known(db, access_key)
    user = repository.entity_by_row(db, held.user)
    if user is None:
        return None
    identity = Identity(user.arn, user.account, "user", user.id, access_key)
    return Known(held.secret, identity, active=held.status == "Active")


def _presigned(query: str) -> bool:
    return "X-Amz-Signature=" in query or "X-Amz-Algorithm=" in query or "AWSAccessKeyId=" in query


def _claimed_key(authorization: str) -> str:
    """The access key an Authorization header names, unverified; empty for none."""
    return authorization.partition("Credential=")[2].partition("/")[0]


def _documents(ctx: Context, arns: list[str] | tuple[str, ...]) -> list[str]:
    found = (policies.document(ctx, arn) for arn in arns)
    return [document for document in found if document is not None]


def _session(ctx: Context, principal: Principal) -> sessions.Session | None:
    """The session the present request's token speaks of, if it is this caller's."""
    if ctx.request is None or not principal.access_key:
        return None
    token = ctx.request.headers.get("x-amz-security-token")
    if token is None and "X-Amz-Security-Token=" in ctx.request.query:
        token = dict(ctx.request.arguments()).get("X-Amz-Security-Token")
    key = None if token is None else sessions.session_key(ctx.db, None)
    if token is None or key is None:
        return None
    session = sessions.unseal(token, key)
    return session if session is not None and session.access_key == principal.access_key else None


def _session_documents(ctx: Context, session: sessions.Session) -> tuple[str, ...] | None:
    if not session.policies and not session.policy_arns:
        return None
    return (*session.policies, *_documents(ctx, tuple(session.policy_arns)))


def _condition_keys(
    principal: Principal, entity: Entity | None, session: sessions.Session | None
) -> dict[str, list[str]]:
    context = {
        "aws:principalarn": [entity.arn if entity is not None else principal.arn],
        "aws:principalaccount": [principal.account],
        "aws:principaltype": [
            {"root": "Account", "user": "User", "role": "AssumedRole"}.get(principal.kind, "Anonymous")
        ],
        "aws:userid": [principal.user_id],
    }
    if principal.kind == "user" and entity is not None:
        context["aws:username"] = [entity.name]
    tags = dict(entity.tags) if entity is not None else {}
    if session is not None:
        tags |= dict(session.tags)
        if session.source_identity:
            context["aws:sourceidentity"] = [session.source_identity]
    for key, value in tags.items():
        context[f"aws:principaltag/{key.lower()}"] = [value]
    return context


def build(platform: Platform) -> IamService:
    return IamService(platform.db)
