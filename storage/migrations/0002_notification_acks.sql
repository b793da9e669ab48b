-- Who was sent what, and acknowledged it when. The key names the recipient, so that every recipient of a broadcast can
-- acknowledge it. A table whose key is the notification alone is given this one.
DO $ara$
DECLARE
    key_name name;
    key_columns name[];
BEGIN
    IF to_regclass('notification_acks') IS NULL THEN
        CREATE TABLE notification_acks (
            notification_id UUID NOT NULL,
            user_id VARCHAR(255) NOT NULL,
            tenant_id VARCHAR(255) DEFAULT 'default',
            connection_id UUID NOT NULL,
            sent_at TIMESTAMPTZ NOT NULL,
            acked_at TIMESTAMPTZ,
            expires_at TIMESTAMPTZ NOT NULL,
            PRIMARY KEY (notification_id, tenant_id, user_id)
        );
        PERFORM set_config('ara.changes', current_setting('ara.changes') || E'created table notification_acks\n', true);
    END IF;
    SELECT conname, (SELECT array_agg(attname ORDER BY attname) FROM pg_attribute
                     WHERE attrelid = conrelid AND attnum = ANY (conkey))
        INTO key_name, key_columns
        FROM pg_constraint WHERE conrelid = 'notification_acks'::regclass AND contype = 'p';
    IF key_columns = ARRAY['notification_id']::name[] THEN
        UPDATE notification_acks SET tenant_id = 'default' WHERE tenant_id IS NULL;
        EXECUTE format('ALTER TABLE notification_acks DROP CONSTRAINT %I', key_name);
        ALTER TABLE notification_acks ADD PRIMARY KEY (notification_id, tenant_id, user_id);
        PERFORM set_config('ara.changes', current_setting('ara.changes')
            || E'widened the primary key of notification_acks from notification_id to notification_id, tenant_id, user_id\n',
            true);
    ELSIF key_columns IS DISTINCT FROM ARRAY['notification_id', 'tenant_id', 'user_id']::name[] THEN
        RAISE EXCEPTION 'notification_acks has another primary key than (notification_id, tenant_id, user_id)'
            USING ERRCODE = 'invalid_table_definition';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
                   WHERE indrelid = 'notification_acks'::regclass AND relname = 'idx_acks_user') THEN
        CREATE INDEX idx_acks_user ON notification_acks (user_id);
        PERFORM set_config('ara.changes', current_setting('ara.changes') || E'created index idx_acks_user\n', true);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
                   WHERE indrelid = 'notification_acks'::regclass AND relname = 'idx_acks_expires') THEN
        CREATE INDEX idx_acks_expires ON notification_acks (expires_at);
        PERFORM set_config('ara.changes', current_setting('ara.changes') || E'created index idx_acks_expires\n', true);
    END IF;
END
$ara$;
