"""What S3's operations share: the bucket a request names, its blobs, the files that may go, the sequence of events."""

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Any

from preheat.kernel.errors import AwsError
from preheat.services.contract import Context, Deferred, Outcome, Params
from preheat.services.s3 import repository
from preheat.services.s3.domain import not_implemented
from preheat.services.s3.notifications import Sequencer
from preheat.services.s3.repository import Bucket
from preheat.store.blobs import Blobs

GRACE_S = 60.0
GARBAGE_TOPIC = "s3:garbage"
REFUSED = {
    "SSECustomerAlgorithm": "x-amz-server-side-encryption-customer-algorithm",
    "SSECustomerKey": "x-amz-server-side-encryption-customer-key",
    "CopySourceSSECustomerAlgorithm": "x-amz-copy-source-server-side-encryption-customer-algorithm",
    "SSEKMSEncryptionContext": "x-amz-server-side-encryption-context",
    "WriteOffsetBytes": "x-amz-write-offset-bytes",
    "ObjectLockMode": "x-amz-object-lock-mode",
    "ObjectLockRetainUntilDate": "x-amz-object-lock-retain-until-date",
    "ObjectLockLegalHoldStatus": "x-amz-object-lock-legal-hold",
    "ObjectLockEventHold": "x-amz-object-lock-event-hold",
    "ObjectLockEventHoldDurationDays": "x-amz-object-lock-event-hold-duration-days",
    "ObjectLockEventHoldDurationYears": "x-amz-object-lock-event-hold-duration-years",
    "BypassGovernanceRetention": "x-amz-bypass-governance-retention",
    "MFA": "x-amz-mfa",
    "AnnotationDirective": "x-amz-annotation-directive",
    "GrantFullControl": "x-amz-grant-full-control",
    "GrantRead": "x-amz-grant-read",
    "GrantReadACP": "x-amz-grant-read-acp",
    "GrantWrite": "x-amz-grant-write",
    "GrantWriteACP": "x-amz-grant-write-acp",
}
_REFUSED_NAMES = frozenset(REFUSED)
_GRANTS = frozenset(name for name in REFUSED if name.startswith("Grant"))


class Garbage:
    """Files whose rows are gone. They stay for a minute, so that an answer that was just given can still be sent;
    what a stop leaves behind is swept at the next start. A loop of the machine."""

    name = "s3 garbage"
    topics = (GARBAGE_TOPIC,)

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._waiting: deque[tuple[float, str]] = deque()

    def discard(self, ctx: Context, name: str) -> None:
        """Remove a blob some time after the commit of this transaction."""
        due = ctx.now + GRACE_S
        ctx.db.after_commit(lambda: self._waiting.append((due, name)))
        ctx.db.notify(GARBAGE_TOPIC)

    def step(self, ctx: Context) -> float | None:
        names = []
        while self._waiting and self._waiting[0][0] <= ctx.now:
            names.append(self._waiting.popleft()[1])
        if names:
            ctx.machine.background.run(lambda: [self._blobs.remove(name) for name in names], lambda _: None)
        return self._waiting[0][0] if self._waiting else None


class Shelf:
    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self.garbage = Garbage(blobs)
        self.sequencer = Sequencer()

    def bucket(self, ctx: Context, params: Params) -> Bucket:
        """The bucket a request names. Raises NoSuchBucket, AccessDenied for another ExpectedBucketOwner, and refuses
        the members that nothing here acts on."""
        if not _REFUSED_NAMES.isdisjoint(params):
            refuse(params)
        found = self.named(ctx, params["Bucket"])
        check_owner(found, params.get("ExpectedBucketOwner"))
        return found

    def named(self, ctx: Context, name: str) -> Bucket:
        found = repository.bucket(ctx.db, name)
        if found is None:
            raise AwsError("NoSuchBucket", "The specified bucket does not exist", 404, fields={"BucketName": name})
        return found

    def new_blob(self, ctx: Context) -> str:
        return ctx.entropy.uuid().replace("-", "")

    def writing(
        self, ctx: Context, name: str, work: Callable[[], Any], then: Callable[[Context, Any], Outcome]
    ) -> Deferred:
        """`work` writes the blob `name` on another thread; `then` puts the row in. The file goes if `then` refuses,
        if the client goes away, or if the disk was full."""
        state = {"cancelled": False}

        def guarded() -> Any:
            try:
                return work()
            except OSError as error:
                raise AwsError(
                    "ServiceUnavailable", f"The body was not stored: {error.strerror or error}", 503
                ) from error

        def start(resolve: Callable[[Any], None]) -> None:
            def done(value: Any) -> None:
                if state["cancelled"] or isinstance(value, Exception):
                    self.blobs.remove(name)
                resolve(value)

            ctx.machine.background.run(guarded, done)

        def continued(inner: Context, value: Any) -> Outcome:
            try:
                return then(inner, value)
            except AwsError:
                self.blobs.remove(name)
                raise

        def cancelled() -> None:
            state["cancelled"] = True

        return Deferred(start, continued, cancelled)


def refuse(params: Params) -> None:
    """Raises for a member nothing acts on; one that says no is let through."""
    for member in sorted(_REFUSED_NAMES.intersection(params)):
        if member in _GRANTS:
            raise acl_refused()
        if params[member] not in (False, "OFF"):
            raise not_implemented(
                "A header you provided implies functionality that is not implemented", REFUSED[member]
            )


def acl_refused() -> AwsError:
    return AwsError("AccessControlListNotSupported", "The bucket does not allow ACLs")


def check_acl(params: Params) -> None:
    """ACLs are disabled, as on every new bucket: only the two that change nothing pass."""
    if params.get("ACL", "private") not in ("private", "bucket-owner-full-control"):
        raise acl_refused()


def check_owner(bucket: Bucket, expected: str | None) -> None:
    if expected is not None and expected != bucket.account:
        raise AwsError("AccessDenied", "Access Denied", 403)


def owner(account: str) -> dict[str, str]:
    """The canonical user of an account: 64 hex digits, made from the account number."""
    return {"DisplayName": account, "ID": hashlib.sha256(account.encode()).hexdigest()}
