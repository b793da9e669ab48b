//! The store's words to PostgreSQL. Each request is one statement, so it happens wholly or not at all.
//!
//! Whatever is counted is counted in the statement that does it, in the row of its session's process id: see
//! `0004_store.sql`.
//!
//! **Locks.** A transaction holds several mailboxes and a row of figures, and two nodes may want the same. So each begins
//! with [`GUARD`], which takes all it will need, mailboxes in the order of their keys and then the figures of its
//! session: whoever waits has nothing that the one he waits for still wants. Only the sweeps take rows of mailboxes they
//! have not locked; they pass over those that are held, and are alone in their transactions. What lingers of a mailbox is
//! under its lock, too.
//!
//! The lock of a mailbox also makes its ids grow in the order of the commits: who has read up to 12 never finds an 11
//! later. It must be a statement of its own, for a statement sees what was there when it began, not when its lock came.
use crate::postgres::command::Statement;

/// The key of the sweeps: one at a time, on all nodes.
pub(super) const SWEEPS: i64 = 0;

/// The key of the templates: their number is bounded, so they are counted one after the other.
pub(super) const TEMPLATES: i64 = 1;

/// Locks what a transaction will change. `$1` keys, sorted. The two numbers say "ara." where a key has but one: the
/// figures are no mailbox.
pub(super) const GUARD: Statement = Statement {
    name: "ara_guard",
    sql: "SELECT pg_advisory_xact_lock(1634885934, pg_backend_pid() % 1024)
        FROM (SELECT count(pg_advisory_xact_lock(key)) FROM unnest($1::int8[]) AS key) AS mailboxes (locked)
        WHERE locked >= 0",
};

/// Keeps mail. `$1` tenant, `$2` user, `$3` how many of those that are there may stay, `$4` how many came and are not
/// even kept, then an array each: messages, times of acceptance, of expiry, epochs, places, deliveries begun, events; then
/// the hash and the number of a claim, or NULLs, since how many milliseconds its message may be there, and now by the
/// node's clock; then for how many milliseconds mail lingers. A row each, in order, or one row without an id when the claim
/// was taken before: the id, how many went, and the last id before these that stands or lingers.
pub(super) const APPEND: Statement = Statement {
    name: "ara_append",
    sql: "WITH claimed AS (
            INSERT INTO notification_claims AS claim (tenant_id, user_id, hash, nth, taken_at)
            SELECT $1::text, $2::text, $12::uuid, $13::int8, now() WHERE $12::uuid IS NOT NULL
            ON CONFLICT (tenant_id, user_id, hash) DO UPDATE
            SET nth = greatest(excluded.nth, claim.nth + 1), taken_at = excluded.taken_at
            WHERE claim.nth < excluded.nth
                OR claim.taken_at < least(now(), $15::timestamptz) - $14::int8 * interval '1 ms'
            RETURNING 1
        ), ours AS MATERIALIZED (
            SELECT 1 WHERE $12::uuid IS NULL OR EXISTS (SELECT FROM claimed)
        ), old AS MATERIALIZED (
            SELECT id FROM notification_queue WHERE tenant_id = $1::text AND user_id = $2::text
                AND EXISTS (SELECT FROM ours)
            ORDER BY id DESC OFFSET $3::int8
        ), gone AS (
            DELETE FROM notification_queue AS mail USING old WHERE mail.id = old.id RETURNING 1
        ), kept AS (
            INSERT INTO notification_queue
                (tenant_id, user_id, message, created_at, expires_at, epoch, seq, attempt, event, kept_at)
            SELECT $1::text, $2::text, came.message, came.created_at, came.expires_at, came.epoch, came.seq,
                   came.attempt, came.event, clock_timestamp()
            FROM unnest($5::jsonb[], $6::timestamptz[], $7::timestamptz[], $8::int8[], $9::int8[], $10::int4[],
                        $11::text[])
                WITH ORDINALITY AS came (message, created_at, expires_at, epoch, seq, attempt, event, place)
            WHERE EXISTS (SELECT FROM ours)
            ORDER BY came.place
            RETURNING id
        ), counts AS MATERIALIZED (
            SELECT (SELECT count(*) FROM kept) + $4::int8 AS enqueued, (SELECT count(*) FROM gone) + $4::int8 AS dropped
            FROM ours
        ), counted AS (
            INSERT INTO notification_queue_stats AS stats (slot, enqueued, dropped)
            SELECT pg_backend_pid() % 1024, enqueued, dropped FROM counts
            ON CONFLICT (slot) DO UPDATE
            SET enqueued = stats.enqueued + excluded.enqueued, dropped = stats.dropped + excluded.dropped
        )
        SELECT kept.id, counts.dropped,
               greatest((SELECT max(id) FROM notification_queue WHERE tenant_id = $1::text AND user_id = $2::text),
                        (SELECT max(id) FROM notification_queue_lately WHERE tenant_id = $1::text AND user_id = $2::text
                            AND kept_at >= clock_timestamp() - $16::int8 * interval '1 ms'))
        FROM (VALUES (1)) AS one LEFT JOIN counts ON true LEFT JOIN kept ON true ORDER BY kept.id",
};

/// Reads a page and begins a delivery of what is on it. `$1` tenant, `$2` user, `$3` behind which id, `$4` entries at
/// most, `$5` now, `$6` bytes at most, `$7` bytes of one event at most. What has expired goes. A row at least: whether
/// there is more, the last id that was looked at, and an entry or NULLs; its last two are when it was put in and when it was
/// read, both by the server's clock.
pub(super) const READ: Statement = Statement {
    name: "ara_read",
    sql: "WITH ahead AS MATERIALIZED (
            SELECT id, expires_at <= $5::timestamptz AS is_over,
                   coalesce(octet_length(event), octet_length(message::text)) AS bytes
            FROM notification_queue
            WHERE tenant_id = $1::text AND user_id = $2::text AND id > $3::int8 ORDER BY id LIMIT $4::int8 + 1
        ), page AS MATERIALIZED (
            SELECT * FROM (SELECT id, is_over, bytes, row_number() OVER (ORDER BY id) AS place,
                                  sum(bytes) OVER (ORDER BY id) AS total FROM ahead) AS counted
            WHERE place = 1 OR place <= $4::int8 AND total <= $6::int8
        ), gone AS (
            DELETE FROM notification_queue AS mail USING page WHERE mail.id = page.id AND page.is_over RETURNING 1
        ), handed AS (
            UPDATE notification_queue AS mail SET attempt = least(mail.attempt, 2147483646) + 1
            FROM page WHERE mail.id = page.id AND NOT page.is_over
            RETURNING mail.id, mail.attempt, mail.epoch, mail.seq, mail.created_at, mail.expires_at,
                      CASE WHEN page.bytes <= $7::int8 THEN coalesce(mail.event, mail.message::text) END AS event,
                      mail.kept_at, clock_timestamp()
        ), counted AS (
            INSERT INTO notification_queue_stats AS stats (slot, expired)
            SELECT pg_backend_pid() % 1024, count(*) FROM gone HAVING count(*) > 0
            ON CONFLICT (slot) DO UPDATE SET expired = stats.expired + excluded.expired
        )
        SELECT (SELECT count(*) FROM ahead) > (SELECT count(*) FROM page), (SELECT max(id) FROM page), handed.*
        FROM (VALUES (1)) AS one LEFT JOIN handed ON true ORDER BY handed.id",
};

/// The same with what lingers in its place, which is only looked at. `$8` within how many milliseconds it was put in. An
/// entry has one column more: whether it lingers.
pub(super) const READ_LINGERING: Statement = Statement {
    name: "ara_read_lingering",
    sql: "WITH clock AS MATERIALIZED (
            SELECT now, now - $8::int8 * interval '1 ms' AS since FROM clock_timestamp() AS now
        ), ahead AS MATERIALIZED (
            SELECT * FROM (
                (SELECT id, expires_at <= $5::timestamptz AS is_over,
                        coalesce(octet_length(event), octet_length(message::text)) AS bytes, false AS is_gone
                 FROM notification_queue
                 WHERE tenant_id = $1::text AND user_id = $2::text AND id > $3::int8 ORDER BY id LIMIT $4::int8 + 1)
                UNION ALL
                (SELECT id, expires_at <= $5::timestamptz, octet_length(event), true
                 FROM notification_queue_lately
                 WHERE tenant_id = $1::text AND user_id = $2::text AND id > $3::int8
                     AND kept_at >= (SELECT since FROM clock) ORDER BY id LIMIT $4::int8 + 1)
            ) AS merged ORDER BY id LIMIT $4::int8 + 1
        ), page AS MATERIALIZED (
            SELECT * FROM (SELECT id, is_over, bytes, is_gone, row_number() OVER (ORDER BY id) AS place,
                                  sum(bytes) OVER (ORDER BY id) AS total FROM ahead) AS counted
            WHERE place = 1 OR place <= $4::int8 AND total <= $6::int8
        ), gone AS (
            DELETE FROM notification_queue AS mail USING page
            WHERE mail.id = page.id AND page.is_over AND NOT page.is_gone RETURNING 1
        ), handed AS (
            UPDATE notification_queue AS mail SET attempt = least(mail.attempt, 2147483646) + 1
            FROM page WHERE mail.id = page.id AND NOT page.is_over AND NOT page.is_gone
            RETURNING mail.id, mail.attempt, mail.epoch, mail.seq, mail.created_at, mail.expires_at,
                      CASE WHEN page.bytes <= $7::int8 THEN coalesce(mail.event, mail.message::text) END AS event,
                      mail.kept_at
        ), lingering AS (
            SELECT mail.id, mail.attempt, mail.epoch, mail.seq, mail.created_at, mail.expires_at,
                   CASE WHEN page.bytes <= $7::int8 THEN mail.event END AS event, mail.kept_at
            FROM notification_queue_lately AS mail JOIN page ON mail.id = page.id
            WHERE mail.tenant_id = $1::text AND mail.user_id = $2::text
                AND mail.id > $3::int8 AND mail.id <= (SELECT max(id) FROM page)
                AND mail.kept_at >= (SELECT since FROM clock) AND page.is_gone AND NOT page.is_over
        ), counted AS (
            INSERT INTO notification_queue_stats AS stats (slot, expired)
            SELECT pg_backend_pid() % 1024, count(*) FROM gone HAVING count(*) > 0
            ON CONFLICT (slot) DO UPDATE SET expired = stats.expired + excluded.expired
        )
        SELECT (SELECT count(*) FROM ahead) > (SELECT count(*) FROM page), (SELECT max(id) FROM page), entry.*
        FROM (VALUES (1)) AS one LEFT JOIN (
            SELECT handed.*, (SELECT now FROM clock), false FROM handed
            UNION ALL SELECT lingering.*, (SELECT now FROM clock), true FROM lingering
        ) AS entry ON true ORDER BY entry.id",
};

/// [`READ`] of a server that takes no changes: nothing is counted and nothing goes. What lingers is not looked at: a
/// standby has none of it, and refuses to look.
pub(super) const READ_ONLY: Statement = Statement {
    name: "ara_read_only",
    sql: "WITH ahead AS MATERIALIZED (
            SELECT id, expires_at <= $5::timestamptz AS is_over,
                   coalesce(octet_length(event), octet_length(message::text)) AS bytes
            FROM notification_queue
            WHERE tenant_id = $1::text AND user_id = $2::text AND id > $3::int8 ORDER BY id LIMIT $4::int8 + 1
        ), page AS MATERIALIZED (
            SELECT * FROM (SELECT id, is_over, bytes, row_number() OVER (ORDER BY id) AS place,
                                  sum(bytes) OVER (ORDER BY id) AS total FROM ahead) AS counted
            WHERE place = 1 OR place <= $4::int8 AND total <= $6::int8
        ), handed AS (
            SELECT mail.id, least(mail.attempt, 2147483646) + 1 AS attempt, mail.epoch, mail.seq, mail.created_at,
                   mail.expires_at,
                   CASE WHEN page.bytes <= $7::int8 THEN coalesce(mail.event, mail.message::text) END AS event,
                   mail.kept_at, clock_timestamp()
            FROM notification_queue AS mail JOIN page ON mail.id = page.id WHERE NOT page.is_over
        )
        SELECT (SELECT count(*) FROM ahead) > (SELECT count(*) FROM page), (SELECT max(id) FROM page), handed.*
        FROM (VALUES (1)) AS one LEFT JOIN handed ON true ORDER BY handed.id",
};

/// Begins a delivery of what nobody reads from here. `$1` tenant, `$2` user, `$3` ids.
pub(super) const BEGIN: Statement = Statement {
    name: "ara_begin",
    sql: "UPDATE notification_queue SET attempt = least(attempt, 2147483646) + 1
        WHERE id = ANY ($3::int8[]) AND tenant_id = $1::text AND user_id = $2::text",
};

/// Takes mail out. `$1` tenant, `$2` user, `$3` ids.
pub(super) const REMOVE: Statement = Statement {
    name: "ara_remove",
    sql: "WITH gone AS (
            DELETE FROM notification_queue
            WHERE id = ANY ($3::int8[]) AND tenant_id = $1::text AND user_id = $2::text RETURNING 1
        )
        INSERT INTO notification_queue_stats AS stats (slot, delivered)
        SELECT pg_backend_pid() % 1024, count(*) FROM gone HAVING count(*) > 0
        ON CONFLICT (slot) DO UPDATE SET delivered = stats.delivered + excluded.delivered",
};

/// The same, and what was put in lately lingers. `$4` how much of it a mailbox has at most, `$5` for how many milliseconds.
/// What has lingered for that long goes, and above the bound the oldest.
pub(super) const REMOVE_LINGERING: Statement = Statement {
    name: "ara_remove_lingering",
    sql: "WITH clock AS MATERIALIZED (
            SELECT now, now - $5::int8 * interval '1 ms' AS since FROM clock_timestamp() AS now
        ), gone AS (
            DELETE FROM notification_queue
            WHERE id = ANY ($3::int8[]) AND tenant_id = $1::text AND user_id = $2::text
            RETURNING id, coalesce(event, message::text) AS event, created_at, expires_at, attempt, epoch, seq, kept_at
        ), young AS MATERIALIZED (
            SELECT * FROM gone WHERE kept_at >= (SELECT since FROM clock)
        ), oldest AS MATERIALIZED (
            SELECT id FROM (
                SELECT id FROM young
                UNION ALL
                SELECT id FROM notification_queue_lately
                WHERE tenant_id = $1::text AND user_id = $2::text AND kept_at >= (SELECT since FROM clock)
            ) AS lingering ORDER BY id DESC OFFSET $4::int8 - 1 LIMIT 1
        ), over AS (
            DELETE FROM notification_queue_lately
            WHERE tenant_id = $1::text AND user_id = $2::text
                AND (kept_at < (SELECT since FROM clock) OR id < (SELECT id FROM oldest))
        ), lingering AS (
            INSERT INTO notification_queue_lately
                (tenant_id, user_id, id, event, created_at, expires_at, attempt, epoch, seq, kept_at)
            SELECT $1::text, $2::text, id, event, created_at, expires_at, attempt, epoch, seq,
                   least(kept_at, (SELECT now FROM clock))
            FROM young WHERE id >= coalesce((SELECT id FROM oldest), id)
        )
        INSERT INTO notification_queue_stats AS stats (slot, delivered)
        SELECT pg_backend_pid() % 1024, count(*) FROM gone HAVING count(*) > 0
        ON CONFLICT (slot) DO UPDATE SET delivered = stats.delivered + excluded.delivered",
};

/// Takes out what nobody can read. As [`REMOVE`].
pub(super) const DISCARD: Statement = Statement {
    name: "ara_discard",
    sql: "WITH gone AS (
            DELETE FROM notification_queue
            WHERE id = ANY ($3::int8[]) AND tenant_id = $1::text AND user_id = $2::text RETURNING 1
        )
        INSERT INTO notification_queue_stats AS stats (slot, undecodable)
        SELECT pg_backend_pid() % 1024, count(*) FROM gone HAVING count(*) > 0
        ON CONFLICT (slot) DO UPDATE SET undecodable = stats.undecodable + excluded.undecodable",
};

/// Takes out what has expired, everywhere. `$1` now, `$2` how many at most. How many went.
pub(super) const SWEEP_MAIL: Statement = Statement {
    name: "ara_sweep_mail",
    sql: "WITH due AS MATERIALIZED (
            SELECT id FROM notification_queue WHERE expires_at <= $1::timestamptz
            ORDER BY expires_at LIMIT $2::int8 FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM notification_queue AS mail USING due WHERE mail.id = due.id RETURNING 1
        ), counted AS (
            INSERT INTO notification_queue_stats AS stats (slot, expired)
            SELECT pg_backend_pid() % 1024, count(*) FROM gone HAVING count(*) > 0
            ON CONFLICT (slot) DO UPDATE SET expired = stats.expired + excluded.expired
        )
        SELECT count(*) FROM gone",
};

/// Forgets what has lingered. `$1` for how many milliseconds it does, `$2` how many at most. How many rows went.
pub(super) const SWEEP_LATELY: Statement = Statement {
    name: "ara_sweep_lately",
    sql: "WITH due AS MATERIALIZED (
            SELECT tenant_id, user_id, id, kept_at FROM notification_queue_lately
            WHERE kept_at < now() - $1::int8 * interval '1 ms'
            ORDER BY kept_at LIMIT $2::int8 FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM notification_queue_lately AS mail USING due
            WHERE (mail.tenant_id, mail.user_id, mail.id, mail.kept_at)
                = (due.tenant_id, due.user_id, due.id, due.kept_at) RETURNING 1
        )
        SELECT count(*) FROM gone",
};

/// Forgets claims. `$1` for how many seconds they are known, `$2` how many at most. How many rows went.
pub(super) const SWEEP_CLAIMS: Statement = Statement {
    name: "ara_sweep_claims",
    sql: "WITH due AS MATERIALIZED (
            SELECT tenant_id, user_id, hash FROM notification_claims WHERE taken_at <= now() - $1::int8 * interval '1 s'
            ORDER BY taken_at LIMIT $2::int8 FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM notification_claims AS claim USING due
            WHERE (claim.tenant_id, claim.user_id, claim.hash) = (due.tenant_id, due.user_id, due.hash) RETURNING 1
        )
        SELECT count(*) FROM gone",
};

/// Notes that a notification is to be acknowledged. `$1` tenant, `$2` user, `$3` notification, `$4` connection, `$5` now,
/// `$6` until when. One that is pending already is not counted again, and has its time from now.
pub(super) const TRACK: Statement = Statement {
    name: "ara_track",
    sql: "WITH known AS MATERIALIZED (
            SELECT 1 FROM notification_acks
            WHERE notification_id = $3::uuid AND tenant_id = $1::text AND user_id = $2::text AND acked_at IS NULL
        ), noted AS (
            INSERT INTO notification_acks AS ack
                (notification_id, tenant_id, user_id, connection_id, sent_at, acked_at, expires_at)
            VALUES ($3::uuid, $1::text, $2::text, $4::uuid, $5::timestamptz, NULL, $6::timestamptz)
            ON CONFLICT (notification_id, tenant_id, user_id) DO UPDATE
            SET connection_id = excluded.connection_id, sent_at = excluded.sent_at, acked_at = NULL,
                expires_at = excluded.expires_at
        )
        INSERT INTO notification_ack_stats AS stats (slot, tracked)
        SELECT pg_backend_pid() % 1024, 1 WHERE NOT EXISTS (SELECT FROM known)
        ON CONFLICT (slot) DO UPDATE SET tracked = stats.tracked + excluded.tracked",
};

/// Acknowledges. `$1` tenant, `$2` user, `$3` notification, `$4` now, `$5` whether it is never too late. True if it was in
/// time, false if it was late, no row if nothing was pending. One that is late is given up here, not by the sweep.
pub(super) const ACKNOWLEDGE: Statement = Statement {
    name: "ara_acknowledge",
    sql: "WITH acked AS (
            UPDATE notification_acks SET acked_at = $4::timestamptz
            WHERE notification_id = $3::uuid AND tenant_id = $1::text AND user_id = $2::text AND acked_at IS NULL
                AND ($5::bool OR expires_at > $4::timestamptz)
            RETURNING greatest((extract(epoch FROM $4::timestamptz - sent_at) * 1000)::int8, 0) AS latency_ms
        ), late AS (
            DELETE FROM notification_acks
            WHERE notification_id = $3::uuid AND tenant_id = $1::text AND user_id = $2::text AND acked_at IS NULL
                AND NOT $5::bool AND expires_at <= $4::timestamptz
            RETURNING 1
        ), counts AS MATERIALIZED (
            SELECT (SELECT count(*) FROM acked) AS acked, (SELECT count(*) FROM late) AS expired,
                   (SELECT coalesce(sum(latency_ms), 0) FROM acked)::int8 AS latency_ms
        ), counted AS (
            INSERT INTO notification_ack_stats AS stats (slot, acked, expired, latency_ms)
            SELECT pg_backend_pid() % 1024, acked, expired, latency_ms FROM counts WHERE acked + expired > 0
            ON CONFLICT (slot) DO UPDATE SET acked = stats.acked + excluded.acked,
                expired = stats.expired + excluded.expired, latency_ms = stats.latency_ms + excluded.latency_ms
        )
        SELECT acked > 0 FROM counts WHERE acked + expired > 0",
};

/// Gives up what was not acknowledged in time, and forgets what was. `$1` now, `$2` how many at most. How many rows went.
pub(super) const SWEEP_ACKS: Statement = Statement {
    name: "ara_sweep_acks",
    sql: "WITH due AS MATERIALIZED (
            SELECT notification_id, tenant_id, user_id FROM notification_acks WHERE expires_at <= $1::timestamptz
            ORDER BY expires_at LIMIT $2::int8 FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM notification_acks AS ack USING due
            WHERE (ack.notification_id, ack.tenant_id, ack.user_id) = (due.notification_id, due.tenant_id, due.user_id)
            RETURNING acked_at
        ), counted AS (
            INSERT INTO notification_ack_stats AS stats (slot, expired)
            SELECT pg_backend_pid() % 1024, count(*) FROM gone WHERE acked_at IS NULL HAVING count(*) > 0
            ON CONFLICT (slot) DO UPDATE SET expired = stats.expired + excluded.expired
        )
        SELECT count(*) FROM gone",
};

/// The figures of mail: users, depth, then the sums in the order of the table.
pub(super) const MAIL_FIGURES: Statement = Statement {
    name: "ara_mail_figures",
    sql: "SELECT held.users, held.depth, sums.* FROM
            (SELECT count(*) AS users, coalesce(sum(entries), 0)::int8 AS depth FROM
                (SELECT count(*) AS entries FROM notification_queue GROUP BY tenant_id, user_id) AS boxes) AS held,
            (SELECT coalesce(sum(enqueued), 0)::int8, coalesce(sum(dropped), 0)::int8, coalesce(sum(expired), 0)::int8,
                    coalesce(sum(delivered), 0)::int8, coalesce(sum(undecodable), 0)::int8
             FROM notification_queue_stats) AS sums",
};

/// The figures of acknowledgements: what is pending, then the sums in the order of the table.
pub(super) const ACK_FIGURES: Statement = Statement {
    name: "ara_ack_figures",
    sql: "SELECT (SELECT count(*) FROM notification_acks WHERE acked_at IS NULL), sums.* FROM
            (SELECT coalesce(sum(tracked), 0)::int8, coalesce(sum(acked), 0)::int8, coalesce(sum(expired), 0)::int8,
                    coalesce(sum(latency_ms), 0)::int8
             FROM notification_ack_stats) AS sums",
};

/// Whether the server writes: adds nothing to a figure.
pub(super) const PROBE: Statement = Statement {
    name: "ara_probe",
    sql: "INSERT INTO notification_queue_stats AS stats (slot) VALUES (pg_backend_pid() % 1024)
        ON CONFLICT (slot) DO UPDATE SET enqueued = stats.enqueued",
};

/// Keeps a template. `$1` tenant, `$2` id, `$3` text, `$4` templates of a tenant at most. No row changed: there are so many.
pub(super) const PUT_TEMPLATE: Statement = Statement {
    name: "ara_put_template",
    sql: "INSERT INTO notification_templates (tenant_id, template_id, template)
        SELECT $1::text, $2::text, $3::text
        WHERE EXISTS (SELECT FROM notification_templates WHERE tenant_id = $1::text AND template_id = $2::text)
            OR (SELECT count(*) FROM notification_templates WHERE tenant_id = $1::text) < $4::int8
        ON CONFLICT (tenant_id, template_id) DO UPDATE SET template = excluded.template",
};

/// Forgets a template. `$1` tenant, `$2` id.
pub(super) const DELETE_TEMPLATE: Statement = Statement {
    name: "ara_delete_template",
    sql: "DELETE FROM notification_templates WHERE tenant_id = $1::text AND template_id = $2::text",
};

/// Every template that is not absurdly long: tenant and text.
pub(super) const LOAD_TEMPLATES: Statement = Statement {
    name: "ara_load_templates",
    sql: "SELECT tenant_id::text, template FROM notification_templates
        WHERE octet_length(template) <= $1::int8 ORDER BY tenant_id, template_id",
};
