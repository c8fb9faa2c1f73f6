"""From a request's template and parameters to a `Spec` that can be carried out, or a ValidationError."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from preheat.kernel.errors import AwsError
from preheat.kernel.scope import Scope
from preheat.kernel.stream import FileSlice
from preheat.services.contract import Context, Outcome, Params
from preheat.template.early import check_values
from preheat.template.extensions import expand
from preheat.template.intrinsics import Resolver, pseudo_parameters
from preheat.template.parameters import Parameter, resolve_parameters
from preheat.template.plan import Spec, Types, check_references, dependencies
from preheat.template.read import (
    LANGUAGE_TRANSFORM,
    MAX_BODY_BYTES,
    MAX_URL_BODY_BYTES,
    SAM_TRANSFORM,
    Template,
    check_outputs,
    check_resources,
    invalid,
    malformed,
    read_template,
)
from preheat.template.rules import check_rules
from preheat.template.sam import translate

IAM_NAMES = {
    "AWS::IAM::AccessKey": None,
    "AWS::IAM::Group": "GroupName",
    "AWS::IAM::InstanceProfile": "InstanceProfileName",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::IAM::Policy": None,
    "AWS::IAM::Role": "RoleName",
    "AWS::IAM::User": "UserName",
    "AWS::IAM::UserToGroupAddition": None,
}
Source = str | FileSlice


@dataclass(frozen=True, slots=True)
class Target:
    """The stack that a template is prepared for."""

    scope: Scope
    id: str
    name: str
    previous: Spec | None = None


class _NoResources:
    """Conditions and loop collections know parameters only."""

    def ref(self, logical_id: str) -> Any:
        raise malformed(
            f"Unresolved dependencies [{logical_id}]. "
            "Cannot reference resources in the Conditions block of the template"
        )

    def get_att(self, logical_id: str, attribute: str) -> Any:
        return self.ref(logical_id)

    def import_value(self, name: str) -> str:
        raise malformed("Fn::ImportValue cannot be used in the Conditions block of the template")

    def unknown(self, value: Any) -> bool:
        return False


def source_of(ctx: Context, params: Params, previous: Spec | None) -> Source:
    """The template's text, or the file that holds it."""
    body, url = params.get("TemplateBody"), params.get("TemplateURL")
    if body is not None and url is not None:
        raise invalid("Only one of TemplateBody or TemplateURL may be specified")
    if params.get("UsePreviousTemplate"):
        if body is not None or url is not None:
            raise invalid("You cannot specify both usePreviousTemplate and Template Body/Template URL.")
        if previous is None:
            raise invalid("UsePreviousTemplate needs a stack that has a template")
        return previous.original
    if body is not None:
        if len(body.encode()) > MAX_BODY_BYTES:
            raise invalid(
                f"1 validation error detected: Value '{body}' at 'templateBody' failed to satisfy constraint: "
                f"Member must have length less than or equal to {MAX_BODY_BYTES}"
            )
        return body
    if url is None:
        raise invalid("Either Template URL or Template Body must be specified.")
    return _fetch(ctx, url)


def _fetch(ctx: Context, url: str) -> Source:
    bucket, key = _object_of(url)
    try:
        found = ctx.call("s3", "GetObject", {"Bucket": bucket, "Key": key})["Body"]
    except AwsError as error:
        raise invalid(f"S3 error: {error.message}") from None
    if isinstance(found, FileSlice):
        if found.length > MAX_URL_BODY_BYTES:
            raise _too_large()
        return found
    if not isinstance(found, bytes):
        raise invalid(f"S3 error: {url} cannot be read at once")
    return _decode(found)


def _object_of(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    host, path = parts.hostname or "", unquote(parts.path.lstrip("/"))
    if parts.scheme not in ("http", "https", "s3") or not host:
        raise invalid("TemplateURL must be a supported URL.")
    if parts.scheme == "s3":
        raise invalid(f"S3 error: Domain name specified in {host} is not a valid S3 domain")
    head, dot, rest = host.partition(".s3")
    if dot and (not rest or rest[0] in ".-"):
        return head, path
    bucket, _, key = path.partition("/")
    if not bucket or not key:
        raise invalid("TemplateURL must be a supported URL.")
    return bucket, key


def _decode(raw: bytes) -> str:
    if len(raw) > MAX_URL_BODY_BYTES:
        raise _too_large()
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise malformed("the template is not UTF-8 text") from None


def _too_large() -> AwsError:
    return invalid(f"Template may not exceed {MAX_URL_BODY_BYTES} bytes in size.")


def read_source(source: Source) -> tuple[str, Template]:
    """Text and template; reads files and parses, so not for the core's thread."""
    if isinstance(source, FileSlice):
        with source.path.open("rb") as file:
            file.seek(source.offset)
            text = _decode(file.read(source.length))
    else:
        text = source
    return text, read_template(text)


class Preparation:
    """Carries one template through its stages; `then(ctx, spec)` makes the operation's outcome."""

    def __init__(self, types: Types, params: Params, target: Target, then: Callable[[Context, Spec], Outcome]) -> None:
        self._types = types
        self._params = params
        self._target = target
        self._then = then

    def start(self, ctx: Context) -> Outcome:
        source = source_of(ctx, self._params, self._target.previous)
        return ctx.offload(lambda: read_source(source), self._parsed)

    def _parsed(self, ctx: Context, value: tuple[str, Template]) -> Outcome:
        text, template = value
        previous = self._target.previous
        given = self._params.get("Parameters") or []
        found = resolve_parameters(template, given, previous.given if previous else {}, lambda name: _ssm(ctx, name))
        values = {name: item.value for name, item in found.items()}
        body = template.body
        check_rules(self._resolver(body, values, template.transforms))
        if LANGUAGE_TRANSFORM in template.transforms:
            body = expand(body, self._resolver(body, values, template.transforms))
            check_resources(Template(body))
            check_outputs(Template(body))
        if SAM_TRANSFORM not in template.transforms:
            return self._processed(ctx, text, template, found, body)
        texts = {name: value if isinstance(value, str) else ",".join(value) for name, value in values.items()}
        region = self._target.scope.region
        return ctx.offload(
            lambda: translate(body, texts, region),
            lambda context, made: self._processed(context, text, template, found, made),
        )

    def _processed(
        self, ctx: Context, text: str, template: Template, found: dict[str, Parameter], body: dict[str, Any]
    ) -> Outcome:
        body = {key: value for key, value in body.items() if key not in ("Transform", "Globals")}
        check_resources(Template(body))
        values = {name: item.value for name, item in found.items()}
        check_references(body, self._pseudo(), self._types)
        resolver = self._resolver(body, values, template.transforms)
        spec = Spec(
            original=text,
            body=body,
            values=values,
            parameters=[item.described() for item in found.values()],
            given={name: item.given for name, item in found.items()},
            conditions=resolver.evaluate_conditions(),
            hidden=[item.given for item in found.values() if item.no_echo],
            tags=checked_tags(self._params.get("Tags"), self._target.previous),
            capabilities=list(self._params.get("Capabilities") or ()),
            notification_arns=list(self._params.get("NotificationARNs") or ()),
            transforms=template.transforms,
            role_arn=self._params.get("RoleARN", ""),
        )
        self._check_types(spec)
        dependencies(spec)
        check_values(spec, self._pseudo())
        return self._then(ctx, spec)

    def _check_types(self, spec: Spec) -> None:
        allowed = self._params.get("ResourceTypes")
        unknown: dict[str, None] = {}
        for name, resource in spec.resources().items():
            kind = resource["Type"]
            if kind not in self._types:
                unknown[kind] = None
            elif resource.get("DeletionPolicy") == "Snapshot" or resource.get("UpdateReplacePolicy") == "Snapshot":
                raise invalid(f"Template error: {name} ({kind}) does not support the deletion policy Snapshot")
            for attribute in ("CreationPolicy", "UpdatePolicy"):
                if resource.get(attribute):
                    raise invalid(f"Template error: Preheat does not carry out {attribute} (resource {name})")
            if allowed and not any(_allows(pattern, kind) for pattern in allowed):
                shown = f"[{', '.join(allowed)}]"
                raise invalid(f"Resource type {kind} is not allowed by parameter ResourceTypes {shown}")
        if unknown:
            raise malformed(f"Unrecognized resource types: [{', '.join(unknown)}]")

    def _pseudo(self) -> dict[str, Any]:
        arns = self._params.get("NotificationARNs")
        return pseudo_parameters(self._target.scope, self._target.id, self._target.name, arns)

    def _resolver(self, body: dict[str, Any], values: dict[str, Any], transforms: list[str]) -> Resolver:
        return Resolver(
            body, {**self._pseudo(), **values}, _NoResources(), extended=LANGUAGE_TRANSFORM in transforms
        )


def _allows(pattern: str, kind: str) -> bool:
    return kind == pattern or (pattern.endswith("*") and kind.startswith(pattern[:-1]))


def _ssm(ctx: Context, name: str) -> str | None:
    try:
        return ctx.call("ssm", "GetParameter", {"Name": name})["Parameter"]["Value"]
    except AwsError as error:
        if "NotFound" in error.code:
            return None
        raise


def checked_tags(given: Any, previous: Spec | None) -> list[dict[str, str]]:
    """The stack's tags; those of the last deployment where none are given."""
    if given is None:
        return list(previous.tags) if previous is not None else []
    if len(given) > 50:
        raise invalid(
            "1 validation error detected: Value at 'tags' failed to satisfy constraint: "
            "Member must have length less than or equal to 50"
        )
    names = [tag["Key"] for tag in given]
    if len(set(names)) != len(names):
        raise invalid("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
    if any(name.lower().startswith("aws:") for name in names):
        raise invalid("aws: prefixed tag key names are not allowed for external use.")
    return [{"Key": tag["Key"], "Value": tag["Value"]} for tag in given]


# -- capabilities ---------------------------------------------------------------------------------------------------


def needed_capability(resources: dict[str, dict[str, Any]]) -> tuple[str | None, list[str]]:
    """CAPABILITY_IAM, CAPABILITY_NAMED_IAM or None, and the resource types that ask for it."""
    kinds: dict[str, None] = {}
    named = False
    for resource in resources.values():
        if resource["Type"] in IAM_NAMES:
            kinds[resource["Type"]] = None
            own = IAM_NAMES[resource["Type"]]
            named = named or (own is not None and own in (resource.get("Properties") or {}))
    if not kinds:
        return None, []
    return "CAPABILITY_NAMED_IAM" if named else "CAPABILITY_IAM", list(kinds)


def check_capabilities(spec: Spec, expands: bool) -> None:
    """`expands`: whether transforms need CAPABILITY_AUTO_EXPAND (not where a change set is looked at first)."""
    needed, _ = needed_capability(spec.resources())
    missing = []
    if needed == "CAPABILITY_IAM" and not {"CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"} & set(spec.capabilities):
        missing.append(needed)
    if needed == "CAPABILITY_NAMED_IAM" and needed not in spec.capabilities:
        missing.append(needed)
    if expands and spec.transforms and "CAPABILITY_AUTO_EXPAND" not in spec.capabilities:
        missing.append("CAPABILITY_AUTO_EXPAND")
    if missing:
        raise AwsError(
            "InsufficientCapabilitiesException", f"Requires capabilities : [{', '.join(missing)}]", 400
        )
