"""STS: who am I, and temporary credentials that need no row (`identity.sessions`)."""

import json
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from preheat.identity import policy, sessions
from preheat.identity.sessions import Session
from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Arn
from preheat.services.contract import Context, Operation, Outcome, Params, Platform

_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
_EXTERNAL_ID = re.compile(r"[\w+=,.@:\\/-]{2,1224}", re.ASCII)
MAX_POLICY_BYTES = 2_048
DEFAULT_ROLE_S = 3_600
DEFAULT_SESSION_S = 43_200


def session_credentials(
    ctx: Context, role_arn: str, session_name: str, duration_s: int | None = None, **more: Any
) -> dict[str, str]:
    """A role's credentials as environment variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN.
    Without a duration they do not expire. Call it inside a transaction."""
    session, secret, token = _issue(ctx, role_arn, session_name, duration_s, **more)
    return {
        "AWS_ACCESS_KEY_ID": session.access_key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_SESSION_TOKEN": token,
    }


def _issue(
    ctx: Context, role_arn: str, name: str, duration_s: int | None, role_id: str = "", **more: Any
) -> tuple[Session, str, str]:
    arn = Arn.parse(role_arn)
    role = role_arn.rsplit("/", 1)[-1]
    session = Session(
        sessions.new_access_key("ASIA", arn.account, ctx.entropy),
        f"arn:aws:sts::{arn.account}:assumed-role/{role}/{name}",
        arn.account,
        "role",
        f"{role_id or _role_id(ctx, role)}:{name}",
        None if duration_s is None else int(ctx.machine.clock.peer_now()) + duration_s,
        **more,
    )
    return (session, *_sealed(ctx, session))


def _sealed(ctx: Context, session: Session) -> tuple[str, str]:
    key = sessions.session_key(ctx.db, ctx.entropy)
    if key is None:
        raise AwsError("InternalFailure", "There is no key to seal a session token with.", 500)
    return sessions.seal(session, key)


def _role(ctx: Context, name: str) -> Params | None:
    try:
        return ctx.call("iam", "GetRole", {"RoleName": name})["Role"]
    except AwsError:
        return None


def _role_id(ctx: Context, name: str) -> str:
    """The role's id; one is made up for a role that IAM does not have."""
    role = _role(ctx, name)
    return role["RoleId"] if role is not None else "AROA" + "".join(c for c in name.upper() if c.isalnum())[:17]


def _credentials(session: Session, secret: str, token: str) -> Params:
    return {
        "AccessKeyId": session.access_key,
        "SecretAccessKey": secret,
        "SessionToken": token,
        "Expiration": datetime.fromtimestamp(session.expires or 0, UTC),
    }


def _invalid(message: str) -> AwsError:
    return AwsError("ValidationError", message)


def _check_duration(seconds: int, low: int, high: int) -> None:
    if not low <= seconds <= high:
        bound = f"less than or equal to {high}" if seconds > high else f"greater than or equal to {low}"
        raise _invalid(
            f"1 validation error detected: Value '{seconds}' at 'durationSeconds' failed to satisfy constraint: Member "
            f"must have value {bound}"
        )


class StsService:
    name = "sts"
    schema = ""

    def __init__(self, enforce: bool) -> None:
        self._enforce = enforce
        self.operations: dict[str, Operation] = {
            "GetCallerIdentity": self.get_caller_identity,
            "AssumeRole": self.assume_role,
            "GetSessionToken": self.get_session_token,
            "GetAccessKeyInfo": self.get_access_key_info,
            "AssumeRoleWithWebIdentity": _refused("AssumeRoleWithWebIdentity", "no identity providers"),
            "AssumeRoleWithSAML": _refused("AssumeRoleWithSAML", "no identity providers"),
            "DecodeAuthorizationMessage": _refused("DecodeAuthorizationMessage", "no encoded messages"),
        }

    def get_caller_identity(self, ctx: Context, params: Params) -> Outcome:
        caller = ctx.principal
        return {"UserId": caller.user_id or caller.account, "Account": caller.account, "Arn": caller.arn}

    def assume_role(self, ctx: Context, params: Params) -> Outcome:
        arn, name = params["RoleArn"], params["RoleSessionName"]
        _check_assume(params)
        role_name = arn.rsplit("/", 1)[-1]
        account = Arn.parse(arn).account
        role = _role(ctx, role_name) if account == ctx.scope.account else None
        if role is not None and role["Arn"] != arn:
            role = None
        if self._enforce:
            self._check_trust(ctx, params, role)
        chained = ctx.principal.kind == "role"
        seconds = params.get("DurationSeconds", DEFAULT_ROLE_S)
        longest = 43_200 if role is None else role["MaxSessionDuration"]
        if chained and seconds > 3_600:
            raise _invalid(
                "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining"
            )
        if seconds > longest:
            raise _invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
        role_id = "" if role is None else role["RoleId"]
        session, secret, token = _issue(
            ctx, arn, name, seconds, role_id,
            policies=[params["Policy"]] if "Policy" in params else [],
            policy_arns=[entry["arn"] for entry in params.get("PolicyArns", ())],
            tags=[[tag["Key"], tag["Value"]] for tag in params.get("Tags", ())],
            source_identity=params.get("SourceIdentity", ""),
        )  # fmt: skip
        output: Params = {
            "Credentials": _credentials(session, secret, token),
            "AssumedRoleUser": {"AssumedRoleId": session.user_id, "Arn": session.arn},
        }
        if "Policy" in params or "PolicyArns" in params:
            output["PackedPolicySize"] = min(100, 1 + len(params.get("Policy", "")) * 100 // MAX_POLICY_BYTES)
        if "SourceIdentity" in params:
            output["SourceIdentity"] = params["SourceIdentity"]
        return output

    def _check_trust(self, ctx: Context, params: Params, role: Params | None) -> None:
        """The role's trust policy must allow the caller. Raises AccessDenied."""
        denied = AwsError(
            "AccessDenied",
            f"User: {ctx.principal.arn} is not authorized to perform: sts:AssumeRole on resource: {params['RoleArn']}",
            403,
        )
        if role is None:
            raise denied
        context = {"sts:rolesessionname": [params["RoleSessionName"]], "aws:principalarn": [ctx.principal.arn]}
        if "ExternalId" in params:
            context["sts:externalid"] = [params["ExternalId"]]
        if "SourceIdentity" in params:
            context["sts:sourceidentity"] = [params["SourceIdentity"]]
        names = (_role_arn(ctx.principal.arn),) if ctx.principal.kind == "role" else ()
        request = policy.Request(
            "sts:AssumeRole", params["RoleArn"], ctx.principal.arn, ctx.principal.account, names, context
        )
        if policy.effect([unquote(role["AssumeRolePolicyDocument"])], request) != "allow":
            raise denied

    def get_session_token(self, ctx: Context, params: Params) -> Outcome:
        if "SerialNumber" in params or "TokenCode" in params:
            raise AwsError("AccessDenied", "MultiFactorAuthentication failed: Preheat has no MFA devices.", 403)
        if "MinimumSessionTokenSize" in params:
            raise _invalid("Preheat does not implement MinimumSessionTokenSize.")
        caller = ctx.principal
        if caller.kind == "role":
            raise AwsError("AccessDenied", "Cannot call GetSessionToken with session credentials", 403)
        seconds = params.get("DurationSeconds", DEFAULT_SESSION_S)
        _check_duration(seconds, 900, 129_600)
        session = Session(
            sessions.new_access_key("ASIA", caller.account, ctx.entropy), caller.arn, caller.account, caller.kind,
            caller.user_id, int(ctx.machine.clock.peer_now()) + seconds,
        )  # fmt: skip
        return {"Credentials": _credentials(session, *_sealed(ctx, session))}

    def get_access_key_info(self, ctx: Context, params: Params) -> Outcome:
        account = sessions.account_of(params["AccessKeyId"])
        if account is None:
            raise _invalid(
                f"1 validation error detected: Value '{params['AccessKeyId']}' at 'accessKeyId' failed to satisfy "
                "constraint: Member must satisfy regular expression pattern: [\\w]*"
            )
        return {"Account": account}


def _check_assume(params: Params) -> None:
    arn, name = params["RoleArn"], params["RoleSessionName"]
    try:
        parsed = Arn.parse(arn)
    except ValueError:
        parsed = None
    if parsed is None or parsed.service != "iam" or not parsed.resource.startswith("role/"):
        raise _invalid(f"{arn} is invalid")
    if not _SESSION_NAME.fullmatch(name):
        raise _invalid(
            f"1 validation error detected: Value '{name}' at 'roleSessionName' failed to satisfy constraint: Member "
            "must satisfy regular expression pattern: [\\w+=,.@-]*"
        )
    if "ExternalId" in params and not _EXTERNAL_ID.fullmatch(params["ExternalId"]):
        raise _invalid(
            f"1 validation error detected: Value '{params['ExternalId']}' at 'externalId' failed to satisfy "
            "constraint: Member must satisfy regular expression pattern: [\\w+=,.@:\\/-]*"
        )
    _check_duration(params.get("DurationSeconds", DEFAULT_ROLE_S), 900, 43_200)
    if "SerialNumber" in params or "TokenCode" in params:
        raise AwsError("AccessDenied", "MultiFactorAuthentication failed: Preheat has no MFA devices.", 403)
    for member in ("ProvidedContexts", "TransitiveTagKeys", "MinimumSessionTokenSize"):
        if member in params:
            raise _invalid(f"Preheat does not implement {member}.")
    keys = [tag["Key"].lower() for tag in params.get("Tags", ())]
    if len(set(keys)) != len(keys):
        raise AwsError(
            "InvalidParameterValue",
            "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
        )
    text = params.get("Policy")
    if text is not None:
        if len(text) > MAX_POLICY_BYTES:
            raise AwsError("PackedPolicyTooLarge", "The session policy is larger than 2048 characters.")
        try:
            json.loads(text)
            policy.check_identity_policy(text)
        except ValueError as error:
            raise AwsError("MalformedPolicyDocument", str(error)) from None


def _role_arn(session_arn: str) -> str:
    """`arn:aws:sts::A:assumed-role/R/S` -> `arn:aws:iam::A:role/R`."""
    arn = Arn.parse(session_arn)
    return f"arn:aws:iam::{arn.account}:role/{arn.resource.split('/')[1]}"


def _refused(operation: str, why: str) -> Operation:
    def refuse(ctx: Context, params: Params) -> Outcome:
        raise AwsError("NotImplemented", f"Preheat does not implement sts:{operation}: there are {why} here.", 501)

    return refuse


def build(platform: Platform) -> StsService:
    return StsService(getattr(platform.settings, "iam", "off") == "enforce")
