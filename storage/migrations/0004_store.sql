-- What the store adds. `event` is the notification as it was accepted: JSONB reorders keys and rewrites numbers, and does
-- not take every JSON text. Who writes to the table without knowing it leaves it NULL; then `message` is what counts.
DO $ara$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'notification_queue'::regclass AND attname = 'event') THEN
        ALTER TABLE notification_queue ADD COLUMN event TEXT;
        PERFORM set_config('ara.changes', current_setting('ara.changes') || E'added column notification_queue.event\n', true);
    END IF;
    -- A page of a mailbox in order, without looking at the whole of it.
    IF NOT EXISTS (SELECT FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
                   WHERE indrelid = 'notification_queue'::regclass AND relname = 'idx_queue_mailbox') THEN
        CREATE INDEX idx_queue_mailbox ON notification_queue (tenant_id, user_id, id);
        PERFORM set_config('ara.changes', current_setting('ara.changes') || E'created index idx_queue_mailbox\n', true);
    END IF;
    -- What ever happened, counted in the statement that does it. A session counts in the row of its process id, so that
    -- commits seldom wait for one another; the sum of the rows is the figure. The rows change often: they get room.
    IF to_regclass('notification_queue_stats') IS NULL THEN
        CREATE TABLE notification_queue_stats (
            slot INTEGER PRIMARY KEY,
            enqueued BIGINT NOT NULL DEFAULT 0,
            dropped BIGINT NOT NULL DEFAULT 0,
            expired BIGINT NOT NULL DEFAULT 0,
            delivered BIGINT NOT NULL DEFAULT 0,
            undecodable BIGINT NOT NULL DEFAULT 0
        ) WITH (fillfactor = 20);
        PERFORM set_config('ara.changes', current_setting('ara.changes') || E'created table notification_queue_stats\n', true);
    END IF;
    IF to_regclass('notification_ack_stats') IS NULL THEN
        CREATE TABLE notification_ack_stats (
            slot INTEGER PRIMARY KEY,
            tracked BIGINT NOT NULL DEFAULT 0,
            acked BIGINT NOT NULL DEFAULT 0,
            expired BIGINT NOT NULL DEFAULT 0,
            latency_ms BIGINT NOT NULL DEFAULT 0
        ) WITH (fillfactor = 20);
        PERFORM set_config('ara.changes', current_setting('ara.changes') || E'created table notification_ack_stats\n', true);
    END IF;
    -- TEXT, for a template's payload is kept exactly.
    IF to_regclass('notification_templates') IS NULL THEN
        CREATE TABLE notification_templates (
            tenant_id VARCHAR(255) NOT NULL,
            template_id VARCHAR(255) NOT NULL,
            template TEXT NOT NULL,
            PRIMARY KEY (tenant_id, template_id)
        );
        PERFORM set_config('ara.changes', current_setting('ara.changes') || E'created table notification_templates\n', true);
    END IF;
END
$ara$;
