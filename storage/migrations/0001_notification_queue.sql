-- Mail for users who are offline; `id` is the order.
--
-- Everything is looked for before it is made: IF NOT EXISTS asks for the right to make it even where it exists, and
-- whoever lets the service only read and write its tables is right.
DO $ara$
BEGIN
    IF to_regclass('notification_queue') IS NULL THEN
        CREATE TABLE notification_queue (
            id BIGSERIAL PRIMARY KEY,
            user_id VARCHAR(255) NOT NULL,
            tenant_id VARCHAR(255) DEFAULT 'default',
            message JSONB NOT NULL,
            created_at TIMESTAMPTZ DEFAULT NOW(),
            expires_at TIMESTAMPTZ NOT NULL
        );
        PERFORM set_config('ara.changes', current_setting('ara.changes') || E'created table notification_queue\n', true);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
                   WHERE indrelid = 'notification_queue'::regclass AND relname = 'idx_queue_user_tenant') THEN
        CREATE INDEX idx_queue_user_tenant ON notification_queue (user_id, tenant_id);
        PERFORM set_config('ara.changes', current_setting('ara.changes') || E'created index idx_queue_user_tenant\n', true);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
                   WHERE indrelid = 'notification_queue'::regclass AND relname = 'idx_queue_expires') THEN
        CREATE INDEX idx_queue_expires ON notification_queue (expires_at);
        PERFORM set_config('ara.changes', current_setting('ara.changes') || E'created index idx_queue_expires\n', true);
    END IF;
END
$ara$;
