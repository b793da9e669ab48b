//! The tables: made once by however many nodes, found by the next start, migrated from what the field may have.
mod common;

use common::postgres::{LinkDriver, PostgresServer, link_config};
use std::sync::Arc;
use storage::postgres::command::{Command, Statement};
use storage::postgres::link::Link;
use storage::postgres::reply::{Reply, Ticket};
use storage::postgres::schema::{self, Changes};
use storage::postgres::status::LinkStatus;

/// Generous: no test waits for it.
const LONG_MS: u32 = 600_000;

/// The tables as the deployment guide prints them.
const GUIDE: &str = "
    CREATE TABLE IF NOT EXISTS notification_queue (
        id BIGSERIAL PRIMARY KEY, user_id VARCHAR(255) NOT NULL, tenant_id VARCHAR(255) DEFAULT 'default',
        message JSONB NOT NULL, created_at TIMESTAMPTZ DEFAULT NOW(), expires_at TIMESTAMPTZ NOT NULL);
    CREATE INDEX idx_queue_user_tenant ON notification_queue(user_id, tenant_id);
    CREATE INDEX idx_queue_expires ON notification_queue(expires_at);
    CREATE TABLE IF NOT EXISTS notification_acks (
        notification_id UUID PRIMARY KEY, user_id VARCHAR(255) NOT NULL, tenant_id VARCHAR(255) DEFAULT 'default',
        connection_id UUID NOT NULL, sent_at TIMESTAMPTZ NOT NULL, acked_at TIMESTAMPTZ,
        expires_at TIMESTAMPTZ NOT NULL);
    CREATE INDEX idx_acks_user ON notification_acks(user_id);
    CREATE INDEX idx_acks_expires ON notification_acks(expires_at);";

/// Every column with its type, whether it may be NULL, and its default; every index and key.
const SHAPE: &str = "
    SELECT * FROM (
        SELECT table_name || '.' || column_name || ' ' || data_type || coalesce(character_maximum_length::text, '')
               || ' ' || is_nullable || ' ' || coalesce(column_default, '')
        FROM information_schema.columns WHERE table_name LIKE 'notification_%'
        UNION ALL SELECT indexdef FROM pg_indexes WHERE tablename LIKE 'notification_%'
    ) AS shape (line) ORDER BY line COLLATE \"C\"";

const EXPECTED: &str = "\
CREATE INDEX idx_acks_expires ON public.notification_acks USING btree (expires_at)
CREATE INDEX idx_acks_user ON public.notification_acks USING btree (user_id)
CREATE INDEX idx_claims_taken ON public.notification_claims USING btree (taken_at)
CREATE INDEX idx_lately_kept ON public.notification_queue_lately USING btree (kept_at)
CREATE INDEX idx_lately_mailbox ON public.notification_queue_lately USING btree (tenant_id, user_id, id)
CREATE INDEX idx_queue_expires ON public.notification_queue USING btree (expires_at)
CREATE INDEX idx_queue_mailbox ON public.notification_queue USING btree (tenant_id, user_id, id)
CREATE INDEX idx_queue_user_tenant ON public.notification_queue USING btree (user_id, tenant_id)
CREATE UNIQUE INDEX notification_ack_stats_pkey ON public.notification_ack_stats USING btree (slot)
CREATE UNIQUE INDEX notification_acks_pkey ON public.notification_acks USING btree (notification_id, tenant_id, user_id)
CREATE UNIQUE INDEX notification_claims_pkey ON public.notification_claims USING btree (tenant_id, user_id, hash)
CREATE UNIQUE INDEX notification_queue_pkey ON public.notification_queue USING btree (id)
CREATE UNIQUE INDEX notification_queue_stats_pkey ON public.notification_queue_stats USING btree (slot)
CREATE UNIQUE INDEX notification_templates_pkey ON public.notification_templates USING btree (tenant_id, template_id)
notification_ack_stats.acked bigint NO 0
notification_ack_stats.expired bigint NO 0
notification_ack_stats.latency_ms bigint NO 0
notification_ack_stats.slot integer NO 
notification_ack_stats.tracked bigint NO 0
notification_acks.acked_at timestamp with time zone YES 
notification_acks.connection_id uuid NO 
notification_acks.expires_at timestamp with time zone NO 
notification_acks.notification_id uuid NO 
notification_acks.sent_at timestamp with time zone NO 
notification_acks.tenant_id character varying255 NO 'default'::character varying
notification_acks.user_id character varying255 NO 
notification_claims.hash uuid NO 
notification_claims.nth bigint NO 
notification_claims.taken_at timestamp with time zone NO 
notification_claims.tenant_id character varying255 NO 
notification_claims.user_id character varying255 NO 
notification_queue.attempt integer NO 0
notification_queue.created_at timestamp with time zone YES now()
notification_queue.epoch bigint NO 0
notification_queue.event text YES 
notification_queue.expires_at timestamp with time zone NO 
notification_queue.id bigint NO nextval('notification_queue_id_seq'::regclass)
notification_queue.kept_at timestamp with time zone YES clock_timestamp()
notification_queue.message jsonb NO 
notification_queue.seq bigint NO 0
notification_queue.tenant_id character varying255 YES 'default'::character varying
notification_queue.user_id character varying255 NO 
notification_queue_lately.attempt integer NO 
notification_queue_lately.created_at timestamp with time zone YES 
notification_queue_lately.epoch bigint NO 
notification_queue_lately.event text NO 
notification_queue_lately.expires_at timestamp with time zone NO 
notification_queue_lately.id bigint NO 
notification_queue_lately.kept_at timestamp with time zone NO 
notification_queue_lately.seq bigint NO 
notification_queue_lately.tenant_id character varying255 NO 
notification_queue_lately.user_id character varying255 NO 
notification_queue_stats.delivered bigint NO 0
notification_queue_stats.dropped bigint NO 0
notification_queue_stats.enqueued bigint NO 0
notification_queue_stats.expired bigint NO 0
notification_queue_stats.slot integer NO 
notification_queue_stats.undecodable bigint NO 0
notification_templates.template text NO 
notification_templates.template_id character varying255 NO 
notification_templates.tenant_id character varying255 NO ";

/// Submits the script and returns what it says it changed, or how it failed.
fn create(driver: &mut LinkDriver) -> Result<Vec<String>, String> {
    let mut changes = Changes::default();
    let mut outcome = None;
    driver.link.submit(Ticket { number: 1, order: None }, schema::command(LONG_MS)).unwrap();
    driver.wants.again = true;
    while outcome.is_none() {
        let (readable, writable) = driver.wait();
        let now = driver.now();
        driver.wants = driver.link.turn(now, readable, writable, &mut |_, reply| {
            changes.hear(&reply);
            match &reply {
                Reply::Row(_) => {}
                Reply::Done { .. } => outcome = Some(Ok(())),
                other => outcome = Some(Err(format!("{other:?}"))),
            }
        });
    }
    outcome.unwrap().map(|()| changes.lines().to_vec())
}

#[test]
fn the_tables_are_those_of_the_guide_and_made_once() {
    let server = PostgresServer::start();
    let mut driver = LinkDriver::to(&server.url());
    let changes = create(&mut driver).unwrap();
    assert_eq!(changes.len(), 17, "{changes:?}");
    assert_eq!(server.psql(SHAPE), EXPECTED.trim_end());
    assert_eq!(create(&mut driver).unwrap(), [""; 0]);
    assert_eq!(create(&mut LinkDriver::to(&server.url())).unwrap(), [""; 0], "the next start");
    assert_eq!(server.psql(SHAPE), EXPECTED.trim_end());
    assert_eq!(driver.status().failed, 0);
    // Whoever knows the guide only writes to them as before.
    server.psql("INSERT INTO notification_queue (user_id, message, expires_at) VALUES ('u', '{}', now())");
    assert_eq!(server.psql("SELECT tenant_id, epoch, seq, attempt FROM notification_queue"), "default|0|0|0");
}

#[test]
fn tables_made_from_the_guide_are_migrated_and_keep_their_rows() {
    let server = PostgresServer::start();
    server.psql(GUIDE);
    let id = "018f0000-0000-7000-8000-000000000007";
    server.psql(&format!(
        "INSERT INTO notification_acks (notification_id, user_id, connection_id, sent_at, expires_at, tenant_id)
         VALUES ('{id}', 'ana', '{id}', now(), now(), NULL);
         INSERT INTO notification_queue (user_id, message, expires_at) VALUES ('ana', '{{}}', now())"
    ));
    let mut driver = LinkDriver::to(&server.url());
    let changes = create(&mut driver).unwrap();
    let widened =
        "widened the primary key of notification_acks from notification_id to notification_id, tenant_id, user_id";
    assert_eq!(changes.iter().filter(|change| *change == widened).count(), 1, "{changes:?}");
    assert_eq!(changes.len(), 12, "{changes:?}");
    assert_eq!(server.psql(SHAPE), EXPECTED.trim_end());
    assert_eq!(
        server.psql("SELECT notification_id, tenant_id, user_id FROM notification_acks"),
        format!("{id}|default|ana")
    );
    assert_eq!(server.psql("SELECT user_id, seq FROM notification_queue"), "ana|0");
    // The second recipient of a broadcast.
    server.psql(&format!(
        "INSERT INTO notification_acks (notification_id, user_id, connection_id, sent_at, expires_at)
         VALUES ('{id}', 'bob', '{id}', now(), now())"
    ));
    assert_eq!(create(&mut driver).unwrap(), [""; 0]);
}

#[test]
fn another_key_is_not_touched() {
    let server = PostgresServer::start();
    server
        .psql(&GUIDE.replace("notification_id UUID PRIMARY KEY", "notification_id UUID, row_id BIGSERIAL PRIMARY KEY"));
    let mut driver = LinkDriver::to(&server.url());
    let error = create(&mut driver).unwrap_err();
    assert!(error.contains("another primary key") && error.contains("42P16"), "{error}");
    assert_eq!(server.psql("SELECT count(*) FROM pg_attribute WHERE attname = 'epoch'"), "0", "nothing was changed");
    assert_eq!(driver.status().ends, 0);
}

#[test]
fn nodes_that_start_together_wait_for_one_another() {
    let server = PostgresServer::start();
    let config = Arc::new(link_config(&server.url()));
    let statuses: Vec<_> = (0..8).map(|_| Arc::new(LinkStatus::new())).collect();
    let threads: Vec<_> = statuses
        .iter()
        .map(|status| {
            let mut driver = LinkDriver::new((*config).clone());
            driver.link = Link::new(Arc::clone(&config), Arc::clone(status), 7, Arc::new(|| ()));
            std::thread::spawn(move || create(&mut driver).unwrap().len())
        })
        .collect();
    let mut changes: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    changes.sort_unstable();
    assert_eq!(changes, [0, 0, 0, 0, 0, 0, 0, 17], "one of them makes them");
    assert_eq!(server.psql(SHAPE), EXPECTED.trim_end());
}

#[test]
fn whoever_may_only_use_the_tables_starts_as_well() {
    const MAIL: Statement = Statement { name: "mail", sql: "SELECT count(*)::text FROM notification_queue" };
    let server = PostgresServer::start();
    let mut owner = LinkDriver::to(&server.url());
    let mut user = LinkDriver::to(&server.url_as("ara", "?sslmode=disable"));
    server.psql("CREATE ROLE ara LOGIN");
    let error = create(&mut user).unwrap_err();
    assert!(error.contains("42501"), "no right to make them: {error}");
    create(&mut owner).unwrap();
    server.psql("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ara");
    assert_eq!(create(&mut user).unwrap(), [""; 0]);
    assert_eq!(user.ask(Command::new(&MAIL, LONG_MS)), ["row 0", "done 1"]);
    // A server that takes no changes, as a standby does.
    server.psql("ALTER ROLE ara SET default_transaction_read_only = on");
    let mut reader = LinkDriver::to(&server.url_as("ara", "?sslmode=disable"));
    assert_eq!(create(&mut reader).unwrap(), [""; 0]);
}
