-- When mail was put in, by the server's clock: `created_at` is the clock of whoever accepted it. Two steps, for a default
-- that differs by row would rewrite the table: rows that are there keep NULL. Who writes without knowing it gets the time.
--
-- What was delivered can be read for a moment longer by nodes that have not heard of it. It is no mail any more and
-- may be lost with a crash, so it is not logged; a standby has none of it. Nothing is unique: were the ids to begin anew,
-- what is left of the old ones would be in nobody's way.
DO $ara$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'notification_queue'::regclass AND attname = 'kept_at') THEN
        ALTER TABLE notification_queue ADD COLUMN kept_at TIMESTAMPTZ;
        ALTER TABLE notification_queue ALTER COLUMN kept_at SET DEFAULT clock_timestamp();
        PERFORM set_config('ara.changes', current_setting('ara.changes') || E'added column notification_queue.kept_at\n', true);
    END IF;
    IF to_regclass('notification_queue_lately') IS NULL THEN
        CREATE UNLOGGED TABLE notification_queue_lately (
            tenant_id VARCHAR(255) NOT NULL,
            user_id VARCHAR(255) NOT NULL,
            id BIGINT NOT NULL,
            event TEXT NOT NULL,
            created_at TIMESTAMPTZ,
            expires_at TIMESTAMPTZ NOT NULL,
            attempt INTEGER NOT NULL,
            epoch BIGINT NOT NULL,
            seq BIGINT NOT NULL,
            kept_at TIMESTAMPTZ NOT NULL
        );
        CREATE INDEX idx_lately_mailbox ON notification_queue_lately (tenant_id, user_id, id);
        CREATE INDEX idx_lately_kept ON notification_queue_lately (kept_at);
        PERFORM set_config('ara.changes', current_setting('ara.changes') || E'created table notification_queue_lately\n', true);
    END IF;
END
$ara$;
