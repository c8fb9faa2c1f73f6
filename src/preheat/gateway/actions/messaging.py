"""Rules of SNS."""

from preheat.gateway.actions.need import Keys, Need, Rule, anything, arn_of, both, each, given, on, when
from preheat.services.contract import Context, Params


def _topic(ctx: Context, params: Params) -> list[str]:
    return [params.get("TopicArn") or params.get("TargetArn") or "*"]


def _subscribed(params: Params) -> Keys:
    keys = {"sns:protocol": params.get("Protocol"), "sns:endpoint": params.get("Endpoint")}
    return {name: [value] for name, value in keys.items() if value is not None}


def _by_link(rule: Rule) -> Rule:
    """Who follows a link of a notification needs no leave: its token is the permission."""

    def either(ctx: Context, params: Params) -> list[Need]:
        return [] if ctx.principal.kind == "anonymous" else rule(ctx, params)

    return either


def sns_rules() -> dict[str, Rule]:
    topics = (
        "AddPermission DeleteTopic GetTopicAttributes ListSubscriptionsByTopic RemovePermission SetTopicAttributes"
    )
    everywhere = (
        "CheckIfPhoneNumberIsOptedOut GetSMSAttributes GetSubscriptionAttributes ListPhoneNumbersOptedOut "
        "OptInPhoneNumber SetSMSAttributes SetSubscriptionAttributes"
    )
    applications = (
        "CreatePlatformEndpoint DeletePlatformApplication GetPlatformApplicationAttributes "
        "ListEndpointsByPlatformApplication SetPlatformApplicationAttributes"
    )
    named = arn_of("sns", "{Name}")
    return {
        **each("sns", _topic, topics),
        **each("sns", anything, everywhere),
        **each("sns", given("PlatformApplicationArn"), applications),
        **each("sns", given("EndpointArn"), "DeleteEndpoint GetEndpointAttributes SetEndpointAttributes"),
        **each("sns", given("ResourceArn"), "ListTagsForResource TagResource UntagResource"),
        **dict.fromkeys(("Publish", "PublishBatch"), on("sns:Publish", _topic)),
        **each("sns", arn_of("sns", "*"), "ListPlatformApplications ListSubscriptions ListTopics"),
        "CreatePlatformApplication": on("sns:CreatePlatformApplication", arn_of("sns", "app/{Platform}/{Name}")),
        "Subscribe": on("sns:Subscribe", _topic, _subscribed),
        "ConfirmSubscription": _by_link(on("sns:ConfirmSubscription", _topic)),
        "Unsubscribe": _by_link(on("sns:Unsubscribe", anything)),
        "CreateTopic": both(on("sns:CreateTopic", named), when("Tags", on("sns:TagResource", named))),
    }
