"""SNS's rows. Topics and their confirmed subscriptions are kept in memory until they change."""

from typing import Any

import msgspec

from preheat.kernel.scope import Scope
from preheat.services.contract import Principal
from preheat.services.sns.domain import (
    DEDUPLICATION_WINDOW_MS,
    TOKEN_LIFE_MS,
    State,
    Subscription,
    Topic,
    make_subscription,
    make_topic,
)
from preheat.store.database import Database

OUTBOX_KEPT = 10_000


class SnsRepository:
    def __init__(self, db: Database) -> None:
        self.db = db
        self._topics: dict[tuple[Scope, str], Topic] = {}
        self._confirmed: dict[int, tuple[Subscription, ...]] = {}
        db.on_undo.append(self._forget)

    def _forget(self) -> None:
        self._topics.clear()
        self._confirmed.clear()

    # -- topics ---------------------------------------------------------------------------------------------------

    def topic(self, scope: Scope, name: str) -> Topic | None:
        found = self._topics.get((scope, name))
        if found is None:
            row = self.db.one(
                "SELECT * FROM sns_topics WHERE account = ? AND region = ? AND name = ?",
                scope.account, scope.region, name,
            )  # fmt: skip
            if row is None:
                return None
            found = self._topics[scope, name] = make_topic(row)
        return found

    def topic_of(self, subscription: Subscription) -> Topic:
        row = self.db.one("SELECT * FROM sns_topics WHERE id = ?", subscription.topic_id)
        assert row is not None
        return make_topic(row)

    def topics(self, scope: Scope, after: str, limit: int) -> list[Topic]:
        rows = self.db.all(
            "SELECT * FROM sns_topics WHERE account = ? AND region = ? AND name > ? ORDER BY name LIMIT ?",
            scope.account, scope.region, after, limit,
        )  # fmt: skip
        return [make_topic(row) for row in rows]

    def create_topic(self, scope: Scope, name: str, attributes: dict[str, str], tags: dict[str, str]) -> Topic:
        self.db.insert(
            "INSERT INTO sns_topics (account, region, name, attributes, tags) VALUES (?, ?, ?, ?, ?)",
            scope.account, scope.region, name, _json(attributes), _json(tags),
        )  # fmt: skip
        topic = self.topic(scope, name)
        assert topic is not None
        return topic

    def set_topic_attributes(self, topic: Topic, attributes: dict[str, str]) -> None:
        self.db.run("UPDATE sns_topics SET attributes = ? WHERE id = ?", _json(attributes), topic.id)
        self._topics.pop((topic.scope, topic.name), None)

    def set_tags(self, topic: Topic, tags: dict[str, str]) -> None:
        self.db.run("UPDATE sns_topics SET tags = ? WHERE id = ?", _json(tags), topic.id)
        self._topics.pop((topic.scope, topic.name), None)

    def delete_topic(self, topic: Topic) -> None:
        for table in ("sns_subscriptions", "sns_deduplication"):
            self.db.run(f"DELETE FROM {table} WHERE topic_id = ?", topic.id)
        self.db.run("DELETE FROM sns_topics WHERE id = ?", topic.id)
        self._topics.pop((topic.scope, topic.name), None)
        self._confirmed.pop(topic.id, None)

    def next_sequence(self, topic: Topic) -> int:
        rows = self.db.returning(
            "UPDATE sns_topics SET sequence = sequence + 1 WHERE id = ? RETURNING sequence", topic.id
        )
        return rows[0]["sequence"]

    # -- deduplication --------------------------------------------------------------------------------------------

    def duplicate(self, topic: Topic, scope: str, dedup_id: str, now_ms: int) -> tuple[str, int] | None:
        """(message id, sequence) of the message that was published with this id not long ago."""
        row = self.db.one(
            """SELECT message_id, sequence FROM sns_deduplication
               WHERE topic_id = ? AND scope = ? AND dedup_id = ? AND expires_at > ?""",
            topic.id, scope, dedup_id, now_ms,
        )  # fmt: skip
        return None if row is None else (row["message_id"], row["sequence"])

    def remember(self, topic: Topic, scope: str, dedup_id: str, message_id: str, sequence: int, now_ms: int) -> None:
        self.db.run(
            "INSERT OR REPLACE INTO sns_deduplication VALUES (?, ?, ?, ?, ?, ?)",
            topic.id, scope, dedup_id, message_id, sequence, now_ms + DEDUPLICATION_WINDOW_MS,
        )  # fmt: skip

    # -- subscriptions --------------------------------------------------------------------------------------------

    def confirmed(self, topic: Topic) -> tuple[Subscription, ...]:
        """Those that get what is published; the same tuple until one of them changes."""
        found = self._confirmed.get(topic.id)
        if found is None:
            rows = self.db.all(
                "SELECT * FROM sns_subscriptions WHERE topic_id = ? AND state = 'confirmed' ORDER BY id", topic.id
            )
            found = self._confirmed[topic.id] = tuple(map(make_subscription, rows))
        return found

    def _one(self, condition: str, *values: Any) -> Subscription | None:
        row = self.db.one(f"SELECT * FROM sns_subscriptions WHERE {condition}", *values)
        return None if row is None else make_subscription(row)

    def subscription(self, uid: str) -> Subscription | None:
        return self._one("uid = ? AND state != 'deleted'", uid)

    def by_token(self, token: str, now_ms: int) -> Subscription | None:
        return self._one("token = ? AND (state = 'confirmed' OR expires_at > ?)", token, now_ms)

    def by_endpoint(self, topic: Topic, protocol: str, endpoint: str) -> Subscription | None:
        return self._one("topic_id = ? AND protocol = ? AND endpoint = ?", topic.id, protocol, endpoint)

    def listed(self, owner: Scope, after: int, limit: int) -> list[Subscription]:
        rows = self.db.all(
            """SELECT * FROM sns_subscriptions WHERE owner = ? AND region = ? AND id > ? AND state != 'deleted'
               ORDER BY id LIMIT ?""",
            owner.account, owner.region, after, limit,
        )  # fmt: skip
        return [make_subscription(row) for row in rows]

    def listed_by_topic(self, topic: Topic, after: int, limit: int) -> list[Subscription]:
        rows = self.db.all(
            "SELECT * FROM sns_subscriptions WHERE topic_id = ? AND id > ? AND state != 'deleted' ORDER BY id LIMIT ?",
            topic.id, after, limit,
        )  # fmt: skip
        return [make_subscription(row) for row in rows]

    def counts(self, topic: Topic) -> dict[str, int]:
        """How many subscriptions there are by state."""
        rows = self.db.all("SELECT state, count(*) FROM sns_subscriptions WHERE topic_id = ? GROUP BY state", topic.id)
        return {row[0]: row[1] for row in rows}

    def filtered(self, topic: Topic) -> int:
        """How many subscriptions have a filter policy."""
        return self.db.value(
            "SELECT count(*) FROM sns_subscriptions WHERE topic_id = ? AND attributes LIKE '%\"FilterPolicy\":%'",
            topic.id,
        )

    def subscribe(
        self,
        topic: Topic,
        uid: str,
        protocol: str,
        endpoint: str,
        owner: Principal,
        attributes: dict[str, str],
        token: str | None,
        now_ms: int,
    ) -> Subscription:
        """A new subscription: pending when it has a token, else confirmed. Takes the place of a deleted one."""
        self.db.run(
            "DELETE FROM sns_subscriptions WHERE topic_id = ? AND protocol = ? AND endpoint = ?",
            topic.id, protocol, endpoint,
        )  # fmt: skip
        state = "confirmed" if token is None else "pending"
        expires = None if token is None else now_ms + TOKEN_LIFE_MS
        self.db.insert(
            """INSERT INTO sns_subscriptions (topic_id, topic_arn, region, uid, protocol, endpoint, owner,
               principal, state, authenticated, token, expires_at, attributes)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            topic.id, topic.arn, topic.scope.region, uid, protocol, endpoint, owner.account, owner.arn, state,
            token is None, token, expires, _json(attributes),
        )  # fmt: skip
        self._changed(topic.id)
        made = self.subscription(uid)
        assert made is not None
        return made

    def set_state(
        self,
        subscription: Subscription,
        state: State,
        *,
        authenticated: bool | None = None,
        guarded: bool | None = None,
        token: str | None = None,
        expires_at: int | None = None,
    ) -> None:
        """What is None of `authenticated`, `guarded` and `token` stays as it is; `expires_at` None: never."""
        self.db.run(
            """UPDATE sns_subscriptions SET state = ?, authenticated = coalesce(?, authenticated),
               guarded = coalesce(?, guarded), token = coalesce(?, token), expires_at = ? WHERE id = ?""",
            state, authenticated, guarded, token, expires_at, subscription.id,
        )  # fmt: skip
        self._changed(subscription.topic_id)

    def set_attributes(self, subscription: Subscription, attributes: dict[str, str]) -> None:
        self.db.run("UPDATE sns_subscriptions SET attributes = ? WHERE id = ?", _json(attributes), subscription.id)
        self._changed(subscription.topic_id)

    def delete(self, subscription: Subscription) -> None:
        self.db.run("DELETE FROM sns_subscriptions WHERE id = ?", subscription.id)
        self._changed(subscription.topic_id)

    def _changed(self, topic_id: int) -> None:
        self._confirmed.pop(topic_id, None)
        self.db.notify("sns:expiry")

    def slot(self, subscription: Subscription, now_ms: int, interval_ms: float) -> int:
        """The next moment (epoch ms) at which a throttled endpoint takes a message; it is taken with that."""
        rows = self.db.returning(
            "UPDATE sns_subscriptions SET free_at = max(free_at, ?) + ? WHERE id = ? RETURNING free_at",
            now_ms, interval_ms, subscription.id,
        )  # fmt: skip
        return int(rows[0]["free_at"] - interval_ms)

    # -- expiry ---------------------------------------------------------------------------------------------------

    def expire(self, now_ms: int, limit: int) -> int | None:
        """Drop up to `limit` subscriptions that nobody confirmed or restored, and as many deduplication ids past their
        window. Returns the next moment (epoch ms) for it."""
        keys = {"sns_subscriptions": "id", "sns_deduplication": "topic_id, scope, dedup_id"}
        times = []
        for table, key in keys.items():
            self.db.run(
                f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE expires_at <= ? LIMIT ?)",
                now_ms, limit,
            )  # fmt: skip
            times.append(self.db.value(f"SELECT min(expires_at) FROM {table} WHERE expires_at IS NOT NULL"))
        return min((at for at in times if at is not None), default=None)

    # -- the outbox -----------------------------------------------------------------------------------------------

    def send(self, now_ms: int, protocol: str, sender: str, to: str, subject: str, body: str, source: str) -> None:
        """Put a mail or text message into the outbox, which keeps the last OUTBOX_KEPT."""
        number = self.db.insert(
            "INSERT INTO sns_outbox (at, protocol, sender, recipient, subject, body, source) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            now_ms, protocol, sender, to, subject, body, source,
        )  # fmt: skip
        self.db.run("DELETE FROM sns_outbox WHERE id <= ?", number - OUTBOX_KEPT)

    def sent(self, limit: int) -> list[dict[str, Any]]:
        """The outbox, newest first."""
        return [dict(row) for row in self.db.all("SELECT * FROM sns_outbox ORDER BY id DESC LIMIT ?", limit)]

    # -- text messages --------------------------------------------------------------------------------------------

    def sms_settings(self, scope: Scope) -> dict[str, str]:
        rows = self.db.all(
            "SELECT name, value FROM sns_sms_settings WHERE account = ? AND region = ?", scope.account, scope.region
        )
        return {row["name"]: row["value"] for row in rows}

    def set_sms_settings(self, scope: Scope, settings: dict[str, str]) -> None:
        for name, value in settings.items():
            self.db.run(
                "INSERT OR REPLACE INTO sns_sms_settings VALUES (?, ?, ?, ?)", scope.account, scope.region, name, value
            )

    # -- the signing key ------------------------------------------------------------------------------------------

    def signing_key(self) -> tuple[bytes, str] | None:
        """(the sealed private key, the certificate in PEM)."""
        row = self.db.one("SELECT sealed, pem FROM sns_signing_key")
        return None if row is None else (bytes(row["sealed"]), row["pem"])

    def keep_signing_key(self, sealed: bytes, pem: str) -> None:
        """The first one stays."""
        self.db.run("INSERT OR IGNORE INTO sns_signing_key VALUES (1, ?, ?)", sealed, pem)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
