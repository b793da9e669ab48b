-- Which mail that every node reads from Redis was kept already: `nth` is the greatest number of equal messages that was
-- taken for a mailbox. Rows go ten minutes later.
DO $ara$
BEGIN
    IF to_regclass('notification_claims') IS NULL THEN
        CREATE TABLE notification_claims (
            tenant_id VARCHAR(255) NOT NULL,
            user_id VARCHAR(255) NOT NULL,
            hash UUID NOT NULL,
            nth BIGINT NOT NULL,
            taken_at TIMESTAMPTZ NOT NULL,
            PRIMARY KEY (tenant_id, user_id, hash)
        );
        CREATE INDEX idx_claims_taken ON notification_claims (taken_at);
        PERFORM set_config('ara.changes', current_setting('ara.changes') || E'created table notification_claims\n', true);
    END IF;
END
$ara$;
