-- A mailbox is a stream: `epoch` and `seq` are given by its owner, `attempt` counts how often a message was sent.
-- Additive: whoever writes to the table without knowing them gets the defaults. A constant default rewrites nothing.
DO $ara$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'notification_queue'::regclass AND attname = 'epoch') THEN
        ALTER TABLE notification_queue ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0;
        PERFORM set_config('ara.changes', current_setting('ara.changes') || E'added column notification_queue.epoch\n', true);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'notification_queue'::regclass AND attname = 'seq') THEN
        ALTER TABLE notification_queue ADD COLUMN seq BIGINT NOT NULL DEFAULT 0;
        PERFORM set_config('ara.changes', current_setting('ara.changes') || E'added column notification_queue.seq\n', true);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'notification_queue'::regclass AND attname = 'attempt') THEN
        ALTER TABLE notification_queue ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0;
        PERFORM set_config('ara.changes', current_setting('ara.changes') || E'added column notification_queue.attempt\n', true);
    END IF;
END
$ara$;
