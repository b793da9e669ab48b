//! Every bound of the system, in one place, with the behaviour when it is reached and how the bounds relate.
//!
//! A number that a setting governs names the setting; the others are fixed.

// --- HTTP ------------------------------------------------------------------------------------------------------------

/// A request head: request line and headers. Longer: 431, the connection closes.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header fields in a head. More: 431, the connection closes.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Body of the five single sends (contract §0.3, inclusive). Longer: 413.
pub const SEND_BODY_BYTES_MAX: usize = 65_536;
/// Body of a batch. Longer: 413.
pub const BATCH_BODY_BYTES_MAX: usize = 1_048_576;
/// Body of every other route that reads one. Longer: 413.
pub const OTHER_BODY_BYTES_MAX: usize = 2_097_152;
/// A chunk-size line with its extensions, and each trailer line. Longer: 400, the connection closes.
pub const CHUNK_LINE_BYTES_MAX: usize = 1_024;
/// A body refused by size is read and thrown away up to this, so that the client can read the answer; then it closes.
pub const HTTP_DISCARD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// From the first byte of a head to its end. Later: 408, the connection closes.
pub const HTTP_HEAD_DEADLINE_MS: u64 = 10_000;
/// From the end of the head to the end of its body. Later: 408, the connection closes.
pub const HTTP_BODY_DEADLINE_MS: u64 = 30_000;
/// Hops of `X-Forwarded-For` that are looked at, from the nearest on. Beyond them the last one seen is the client.
pub const FORWARDED_HOPS_MAX: usize = 32;
/// A kept-alive or fresh connection without a byte. Later: it closes without a word.
pub const HTTP_IDLE_DEADLINE_MS: u64 = 75_000;
/// A response nobody reads. Later: the connection is dropped.
pub const HTTP_WRITE_DEADLINE_MS: u64 = 30_000;
/// After the last byte was sent, how long the peer may take to close before we do.
pub const CLOSE_LINGER_MS: u64 = 2_000;
/// What waits for a connection that ends is written out at this rate at least, in bytes a second, after a grace of
/// [`CLOSE_FLUSH_MS`]. A peer that reads slower is dropped, though it never stalls.
pub const CLOSE_BYTES_PER_SECOND_MIN: usize = 16 * 1024;
/// See [`CLOSE_BYTES_PER_SECOND_MIN`].
pub const CLOSE_FLUSH_MS: u64 = 60_000;

// --- WebSocket and SSE -----------------------------------------------------------------------------------------------

/// A client's message, all fragments together (contract §0.3, inclusive). Longer: close 1009.
pub const WS_MESSAGE_BYTES_MAX: usize = 65_536;
/// Payload of a control frame (RFC 6455 §5.5). Longer: close 1002.
pub const WS_CONTROL_BYTES_MAX: usize = 125;
/// Control bytes (pongs, replies, errors) waiting for a client that does not read. More: the connection stops being
/// read until they are written, so a flood of pings costs its sender, not us.
pub const OUTBOX_CONTROL_BYTES_MAX: usize = 128 * 1024;
/// Frames waiting for one connection, in bytes. More: mail waits in its mailbox; with anything else, close 4008.
pub const OUTBOX_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Frames waiting for one connection, in number. More: as above.
pub const OUTBOX_FRAMES_MAX: usize = 16_384;
/// What the kernel keeps of one client's output (`SO_SNDBUF`; at most `net.core.wmem_max`, and doubled for its own use).
/// Left to itself it keeps up to 4 MiB of everybody who does not read: memory that nobody counts, that is slow to come by,
/// and that no urgent frame overtakes. Enough for some megabytes a second to a client a tenth of a second away.
pub const SOCKET_SEND_BUFFER_BYTES: usize = 256 * 1024;
/// How long output may wait without the socket taking a byte. Longer: close 4008.
pub const OUTBOX_STALL_MS: u64 = 30_000;
/// How long a frame may wait whose connection's socket is full, even if it takes a little now and then. Longer: mail is put
/// back into its mailbox; with anything else, close 4008.
pub const OUTBOX_AGE_MS: u64 = 60_000;
/// The least share of one shard in `SERVER_OUTBOX_MEMORY_MB`, the memory of all that waits in outboxes: a frame counts once
/// on each shard, however many connections wait for it. More than its share: the largest outboxes are shed, until an eighth
/// of it is free; mail goes back into its mailbox, otherwise close 4008. While that is not enough, publishes are refused.
pub const SHARD_OUTBOX_BYTES_MIN: usize = 8 * 1024 * 1024;
/// After all was shed that could be, how long until it is looked at again.
pub const OUTBOX_SHED_PAUSE_MS: u64 = 100;
/// How long a close handshake may take: from our Close frame to the client's. Longer: the socket is dropped.
pub const WS_CLOSE_DEADLINE_MS: u64 = 5_000;
/// Channels in one Subscribe or Unsubscribe follow from the message bound; names longer than this are invalid.
pub const CHANNEL_NAME_BYTES_MAX: usize = 64;
/// `tenant_id` in a header, a claim or a payload.
pub const TENANT_ID_BYTES_MAX: usize = 64;
/// `sub` in a token; the seed's tables hold 255 characters.
pub const USER_ID_CHARS_MAX: usize = 255;
/// A token, in the query or the header. Longer: 401.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// `?channels=` of an SSE request: names beyond the subscription limit are refused with 400, as is a bad name.
pub const SSE_CHANNELS_MAX: usize = 100;
/// Leeway on `exp` and `nbf` (contract §2).
pub const TOKEN_LEEWAY_SECONDS: u64 = 60;
/// Names and patterns in a token's `channels`. More: the token is refused.
pub const TOKEN_CHANNELS_MAX: usize = 128;
/// A token's `jti`. Longer: the token is refused, as is a call to revoke such a one.
pub const TOKEN_ID_BYTES_MAX: usize = 256;
/// Revocations of tokens that a node holds. More: a call to revoke is refused with 503, and nothing is forgotten for it. What
/// other nodes revoked meanwhile is taken up to twice as many; beyond that, which takes a stranger in Redis, it is not, and
/// the log says so.
pub const REVOCATIONS_MAX: usize = 131_072;
/// How long a revocation is held when its caller does not say when the tokens expire, and at most: a token that lives longer
/// holds again then.
pub const REVOCATION_SECONDS_MAX: u64 = 30 * 86_400;
/// From one look for revocations whose time is over to the next.
pub const REVOCATION_SWEEP_MS: u64 = 10_000;
/// Revocations in one command to Redis, and about as many in one answer.
pub const REVOCATION_PAGE: usize = 256;
/// How long a connection goes without a look at the wall clock, by which its token ends: somebody may have set it forward.
pub const TOKEN_LOOK_MS: u64 = 30_000;

// --- Publishing ------------------------------------------------------------------------------------------------------

/// `target_user_ids` of one request (contract §1.8).
pub const PUBLISH_USERS_MAX: usize = 10_000;
/// `channels` of one request.
pub const PUBLISH_CHANNELS_MAX: usize = 100;
/// Items of one batch.
pub const BATCH_ITEMS_MAX: usize = 100;
/// JSON nesting, counting the outermost value. Deeper: 400 from REST, counted and skipped from Redis.
pub const JSON_DEPTH_MAX: usize = 127;
/// A Redis payload. Longer: counted and skipped; the wire form of the notification must fit an outbox.
pub const REDIS_PAYLOAD_BYTES_MAX: usize = 1_048_576;
/// Template ids, names and event types (contract §0.3).
pub const TEMPLATE_ID_BYTES_MAX: usize = 130;
/// See [`TEMPLATE_ID_BYTES_MAX`].
pub const TEMPLATE_NAME_BYTES_MAX: usize = 256;
/// See [`TEMPLATE_ID_BYTES_MAX`].
pub const TEMPLATE_EVENT_TYPE_BYTES_MAX: usize = 128;
/// Templates of one tenant. More: 400 `VALIDATION_ERROR`.
pub const TEMPLATES_PER_TENANT_MAX: usize = 10_000;
/// Templates deleted while a shard loads them. More: it asks for them anew.
pub const TEMPLATES_DELETED_MAX: usize = 1_024;
/// A payload rendered from a template. Longer: 400 `VALIDATION_ERROR`.
pub const RENDERED_BYTES_MAX: usize = 1_048_576;
/// How long a publish waits for the counts of other shards; then it answers with what is known.
pub const GATHER_DEADLINE_MS: u64 = 2_000;

// --- Mailboxes and acknowledgements ----------------------------------------------------------------------------------

/// Notifications of one user whose acknowledgement is awaited. More: the oldest counts as expired; if it is kept, it comes
/// again with the next reading of the mailbox.
pub const ACKS_AWAITED_MAX: usize = 1_024;
/// Notifications of one user that were acknowledged lately, remembered so that another device may acknowledge them, too.
pub const ACKS_REMEMBERED_MAX: usize = 128;
/// Entries of one page when a connection catches up with its mailbox.
pub const CATCH_UP_ENTRIES: usize = 64;
/// Frames waiting for a connection, in bytes, above which it reads no further page.
pub const CATCH_UP_BYTES: usize = 256 * 1024;
/// After a failure of the store, how long until it is asked again.
pub const STORE_RETRY_MS: u64 = 500;
/// Requests of one shard that the store has not answered. More: the node refuses publishes (503, Redis is not read) until
/// half of them are answered.
pub const STORE_WAITS_MAX: usize = 10_000;
/// Mail that cannot be kept now and that nobody was told about (what came by Redis, what a connection did not take, what
/// one device has and another has not), on one shard. More: counted as refused and gone.
pub const STORE_RETRIES_MAX: usize = 10_000;
/// Bytes of that mail. More: as above.
pub const STORE_RETRY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Mail of one mailbox that is tried again in one request; the rest goes behind it.
pub const STORE_RETRY_MAIL: usize = 256;
/// Mailboxes of one shard whose mail is tried again at the same time. More wait their turn.
pub const STORE_RETRIES_UNDER_WAY_MAX: usize = 64;
/// Mail that was written or acknowledged and that the store has not forgotten yet, on one shard. More: it stays in its
/// mailbox, and comes again and says so.
pub const STORE_REMOVALS_MAX: usize = 1_048_576;
/// Mail of one mailbox that one request forgets.
pub const STORE_REMOVAL_POSITIONS_MAX: usize = 1_000;
/// How long, in milliseconds, mail that was forgotten can still be read by other nodes, from when it was put in: longer than the
/// word of it is on its way to a node that is well, and than a client that reads is behind.
pub const STORE_LINGER_MS: u64 = 8_000;
/// Mailboxes of one shard of which something is being forgotten at the same time. More wait their turn.
pub const STORE_REMOVALS_UNDER_WAY_MAX: usize = 1_024;
/// Notes about deliveries and acknowledgements that wait for the store, on one shard. More: not noted, and counted.
pub const STORE_NOTES_MAX: usize = 65_536;
/// Notes about acknowledgements that one shard has under way.
pub const STORE_NOTES_UNDER_WAY_MAX: usize = 1_024;
/// Streams whose count one shard remembers. More: one that was not used lately is forgotten, and begins a new epoch.
pub const STREAMS_MAX: usize = 65_536;
/// Readings of mailboxes that one shard has under way. More wait their turn, in the order they came.
pub const STORE_READS_UNDER_WAY_MAX: usize = 1_024;

// --- Shards and mesh -------------------------------------------------------------------------------------------------

/// Shards of one node: the width of a shard set.
pub const SHARDS_MAX: usize = 128;
/// Messages a lane from one shard to another holds before it spills to its overflow.
pub const LANE_MESSAGES: usize = 4_096;
/// Messages in a lane's overflow above which the node refuses new publishes (503, Redis is not read).
pub const LANE_OVERFLOW_CONGESTED: usize = 1_024;
/// Messages in a lane's overflow below which it takes publishes again.
pub const LANE_OVERFLOW_RELIEVED: usize = 64;
/// Messages taken from the lanes in one turn.
pub const TURN_MESSAGES_MAX: usize = 1_024;
/// Sockets accepted in one turn.
pub const TURN_ACCEPTS_MAX: usize = 64;
/// Deliveries made by fan-outs before what they queued is written; a longer one goes on afterwards. High enough that a
/// channel of ten thousand gets twenty messages in one write, low enough that it is a few milliseconds of work.
pub const TURN_DELIVERIES_MAX: usize = 262_144;
/// Connections written to in one turn; the others wait their turn, in order.
pub const TURN_WRITES_MAX: usize = 1_024;
/// Connections waiting to be written to above which a shard takes no work from its lanes and links.
pub const WRITES_WAITING_MAX: usize = 16_384;
/// Fan-outs waiting on a shard above which it leaves its lanes alone, and the node refuses all publishes it would take.
pub const FANOUTS_WAITING_MAX: usize = 8 * FANOUTS_PER_TENANT_MAX;
/// Bytes of fan-outs waiting on a shard. More: as above.
pub const FANOUT_BYTES_WAITING_MAX: usize = 8 * FANOUT_BYTES_PER_TENANT_MAX;
/// Fan-outs of one tenant waiting on a shard above which the node refuses this tenant's publishes (503), and does not read
/// on where the last one came from without being answered (Redis); until half of them are through.
pub const FANOUTS_PER_TENANT_MAX: usize = 1_024;
/// Bytes of one tenant's fan-outs waiting on a shard. More: as above.
pub const FANOUT_BYTES_PER_TENANT_MAX: usize = 16 * 1024 * 1024;
/// Deliveries of one tenant's fan-outs before the next tenant that has some has its turn.
pub const FANOUT_QUANTUM_DELIVERIES: usize = 8_192;
/// Connections of one tenant written to before the next tenant that has some has its turn.
pub const WRITE_QUANTUM: usize = 64;
/// Tenants that one shard holds back at a time. The bounds of what waits keep it below, but for what was on its way to the
/// shard already; of more, all publishes are refused sooner than theirs.
pub const TENANTS_HELD_BACK_MAX: usize = 16;
/// Bytes of one read: the shard's one receive buffer.
pub const READ_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one assembled write.
pub const WRITE_BYTES_MAX: usize = 64 * 1024;
/// `listen` backlog: a storm of connects waits in the kernel, not in the clients' retry timers.
pub const LISTEN_BACKLOG: i32 = 4_096;
/// File descriptors kept for listeners, links, eventfds and the log when the connection limit is derived.
pub const FDS_RESERVED: u64 = 64;

// --- TLS for clients -------------------------------------------------------------------------------------------------

/// From the accept to the end of the handshake. Later: the connection closes without a word.
pub const TLS_HANDSHAKE_DEADLINE_MS: u64 = 10_000;
/// What is kept of a client's ciphertext while a record, or a message of the handshake, is not whole: one record (RFC 5246
/// §6.2.3). More: the connection closes.
pub const TLS_INPUT_BYTES_MAX: usize = 5 + 16_384 + 2_048;
/// Ciphertext that waits for one socket: that of one write, and what TLS itself has to say. More: the connection closes.
pub const TLS_PENDING_BYTES_MAX: usize = 128 * 1024;
/// Handshakes that one turn answers, at up to a millisecond each; the others are read in the next turns. So a storm of
/// newcomers delays those who are connected by a few milliseconds.
pub const TURN_HANDSHAKES_MAX: usize = 8;
/// Bytes of `TLS_CERT` and of `TLS_KEY`. More: not read.
pub const TLS_FILE_BYTES_MAX: u64 = 1024 * 1024;

// --- Redis link ------------------------------------------------------------------------------------------------------

/// Patterns and channels in `REDIS_CHANNELS`.
pub const REDIS_CHANNELS_MAX: usize = 1_024;
/// Bytes a partial reply may occupy: above it the link is dropped and made anew.
pub const REDIS_REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Connecting and authenticating together.
pub const REDIS_CONNECT_DEADLINE_MS: u64 = 5_000;
/// Silence on the subscription after which a PING is sent; twice it without an answer drops the link.
pub const REDIS_PING_INTERVAL_MS: u64 = 5_000;

// --- Cluster ---------------------------------------------------------------------------------------------------------

/// A parcel between nodes. A longer one is not sent, and skipped and counted when it comes: a reply that breaks
/// [`REDIS_REPLY_BYTES_MAX`] would cost every node its link. Only what a template made long can reach it, for a quote of
/// a message takes two bytes in a parcel.
pub const CLUSTER_PARCEL_BYTES_MAX: usize = 4 * 1024 * 1024 - 64 * 1024;
/// `CLUSTER_SERVER_ID`. Longer: the node does not start, and a parcel that names such a one is skipped.
pub const SERVER_ID_BYTES_MAX: usize = 128;
/// Claims in one parcel. A node that has more to say sends several; a parcel with more is skipped.
pub const CLUSTER_CLAIMS_MAX: usize = 1_024;
/// Sessions of a user in one answer. The node that is asked tells no more of them; a parcel with more is skipped.
pub const CLUSTER_SESSIONS_MAX: usize = 1_024;
/// Mail read from Redis that waits on one shard: for its turn, or for the store. Above it what would wait for its turn longest is
/// asked for at once, in the order of its mailbox if not of what others hold; when all of it waits for the store, what would wait,
/// too, is not kept here, and counted.
pub const CLUSTER_CLAIMS_WAITING_MAX: usize = 8_192;
/// What other nodes have kept already when it is read here, remembered by one shard. What is forgotten is asked for once more.
pub const CLUSTER_CLAIMS_REMEMBERED_MAX: usize = 16_384;
/// How long, in milliseconds, mail waits for another node to keep it.
pub const CLUSTER_CLAIM_WAIT_MS: u64 = 2_000;
/// How long, in milliseconds, a node has read without a break what is published to Redis before it keeps mail. What it has missed
/// other nodes may hold for [`CLUSTER_CLAIM_WAIT_MS`], and it comes before what this one has read since.
pub const CLUSTER_CLAIM_SETTLE_MS: u64 = 2_500;
const _: () = assert!(CLUSTER_CLAIM_SETTLE_MS > CLUSTER_CLAIM_WAIT_MS);
/// How much longer, in milliseconds, a node waits that has read for less than another.
pub const CLUSTER_CLAIM_YIELD_MS: u64 = 1_000;
/// How long at most, in milliseconds, mail that the store failed before a node's reading broke is left to those who waited for
/// the node's word, while it does not read again.
pub const CLUSTER_CLAIM_YIELD_MAX_MS: u64 = 10_000;
/// From a refusal of the store to the next attempt, in milliseconds; twice as long each time while it does other things, up to
/// [`CLUSTER_CLAIM_RETRY_MAX_MS`].
pub const CLUSTER_CLAIM_RETRY_MS: u64 = 250;
/// See [`CLUSTER_CLAIM_RETRY_MS`].
pub const CLUSTER_CLAIM_RETRY_MAX_MS: u64 = 2_000;
/// How long, in milliseconds, the store may be silent about mail of a mailbox before it is asked for no more of it: what it was
/// asked for and cannot begin is refused one by one, and something may come through in between.
pub const CLUSTER_CLAIM_AHEAD_MS: u64 = 100;
/// How long, in milliseconds, a node waits for the hint of what another has kept that it has read itself, before it looks into
/// the mailbox. As many mailboxes may wait as [`CLUSTER_CLAIMS_WAITING_MAX`]; more are looked into at once.
pub const CLUSTER_HINT_WAIT_MS: u64 = 1_000;
/// How long, in milliseconds, templates are not read again after another node wrote one: it may write more.
pub const CLUSTER_TEMPLATES_WAIT_MS: u64 = 200;
/// Connections in a page of sessions; one a turn.
pub const CLUSTER_SESSION_PAGE: usize = 256;
/// How long a client waits, in milliseconds, until the other nodes know that its user is here, or that this node listens to
/// its channel. Then it is answered anyway.
pub const CLUSTER_WATCH_DEADLINE_MS: u64 = 1_000;
/// Equal messages of Redis are told apart by their count while they come within so many milliseconds of each other: for as
/// long as stores remember claims.
pub const CLUSTER_REPEATS_MS: u64 = 600_000;
const _: () = assert!(CLUSTER_REPEATS_MS >= 1_000 * REDIS_CLAIM_KEPT_SECONDS);
const _: () = assert!(CLUSTER_REPEATS_MS >= 1_000 * POSTGRES_CLAIM_KEPT_SECONDS as u64);
/// Messages of Redis whose count is remembered, twice, each some 40 bytes. Of one that is forgotten the count begins anew, and
/// of two that follow within [`CLAIM_AGE_MARGIN_MS`] the second may pass for the first.
pub const CLUSTER_REPEATS_MAX: usize = 131_072;
/// How much older than it can be a claimed message is taken for, in milliseconds: what clocks of servers differ by, and what
/// the nodes of a Redis Cluster keep each other waiting.
pub const CLAIM_AGE_MARGIN_MS: u64 = 1_000;
/// Topics that one node listens to: users with a connection and channels with a subscriber. Above it a topic is not
/// listened to: what other nodes publish there does not reach this one.
pub const CLUSTER_TOPICS_MAX: usize = 4 * 1024 * 1024;
/// How long a connection waits for the word of Redis that the cluster has room for it; then the node decides by its own
/// counts.
pub const CLUSTER_ADMISSION_DEADLINE_MS: u64 = 1_000;
/// Topics that were asked for and are not confirmed. More wait for their turn.
pub const CLUSTER_TOPICS_ASKED_MAX: usize = 4_096;
/// Nodes of one cluster. A `hello` of one more is passed over.
pub const CLUSTER_MEMBERS_MAX: usize = 1_024;
/// From one `hello` of a node to the next.
pub const CLUSTER_HELLO_INTERVAL_MS: u64 = 1_000;
/// Silence after which a node is not counted any more.
pub const CLUSTER_MEMBER_SILENCE_MS: u64 = 3_000;
/// Users that one step of the walk over all users of the cluster looks at, about.
pub const CLUSTER_SWEEP_USERS: u32 = 256;
/// Commands of the bridge that are not answered, above which the keys of sessions wait for the next refresh: parcels go
/// before.
pub const CLUSTER_SESSION_COMMANDS_MAX: usize = 8_192;
/// Topics that were left while Redis was away, whose keys are put right when it is back. Of more, the keys are right
/// after their time to live.
pub const CLUSTER_LEAVES_OWED_MAX: usize = 16_384;
/// Users of whom one piece of mail could not be told to other nodes while Redis was away, and is told when it is back; the
/// last one of each is enough. Of more, the other nodes hear with the next piece.
pub const CLUSTER_HINTS_UNSENT_MAX: usize = 4_096;
/// Partitions of a Redis Cluster that a parcel may name: those of decision 9.
pub const CLUSTER_PARTITIONS_MAX: usize = 16;
/// How long, in milliseconds, a fence waits for its other partitions and its publication. Then what came is delivered, and
/// what was held behind it; whoever subscribed to several of the channels may get it before what was slow.
pub const CLUSTER_FENCE_WAIT_MS: u64 = 1_000;
/// Parcels and fences that one node holds behind fences. At the bound every fence that is open is given up as if its time
/// were over: nothing is lost, but for these publications the order between partitions is.
pub const CLUSTER_FENCED_MAX: usize = 4_096;
/// Bytes of the messages among them; at the bound likewise.
pub const CLUSTER_FENCED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Fences that were given up and are remembered, so that what comes of them late holds nothing.
pub const CLUSTER_FENCES_REMEMBERED_MAX: usize = 1_024;
/// Bytes of the publications in one bundle. One that has no room for the next is sent; a publication that is longer by
/// itself is sent alone.
pub const CLUSTER_BUNDLE_BYTES_MAX: usize = 128 * 1024;
/// Publications in one bundle. One that has them is sent; one with more is skipped when it comes.
pub const CLUSTER_BUNDLE_PUBLICATIONS_MAX: usize = 1_024;
/// How long, in microseconds, a publication waits for others of its bundle: nobody is known to be there to hear it.
pub const CLUSTER_BUNDLE_WAIT_US: u64 = 10_000;
/// From one canary to the next.
pub const CANARY_INTERVAL_MS: u64 = 500;
/// How old the last canary that came back may be while messages are said to flow.
pub const CANARY_AGE_MS_MAX: u64 = 1_800;
/// The version in a `hello`. Longer: the parcel is skipped.
pub const CLUSTER_VERSION_BYTES_MAX: usize = 64;

// --- Rate limits -------------------------------------------------------------------------------------------------------

/// Identities with a bucket of one kind on one shard. One more takes the place of one whose bucket is full, which loses
/// nothing; where none is found, newcomers share one bucket until there is room.
pub const RATE_LIMIT_BUCKETS_MAX: usize = 65_536;
/// Buckets that a newcomer looks at to find one that is full.
pub const RATE_LIMIT_BUCKETS_TRIED_MAX: usize = 32;
/// A bucket that is full and was not used for so long is forgotten by the next sweep.
pub const RATE_LIMIT_IDLE_MS: u64 = 300_000;
/// Buckets that one step of a sweep looks at, each turn.
pub const RATE_LIMIT_SWEEP_MAX: usize = 4_096;
/// Refusals that a shard remembers until there is a token again, so that a flood of one client asks nobody. Of more, all are
/// forgotten, and asked for once more.
pub const RATE_LIMIT_REFUSALS_MAX: usize = 4_096;
/// From asking Redis for a count to its answer. Later: the link is made anew, and the node counts by itself meanwhile.
pub const RATE_LIMIT_REDIS_TIMEOUT_MS: u64 = 500;

// --- Redis topology --------------------------------------------------------------------------------------------------

/// Hosts in one `REDIS_URL`, sentinels or nodes of a cluster: more are refused at start.
pub const REDIS_SEEDS_MAX: usize = 16;
/// Sentinels, or nodes of a cluster, that are asked in turn, those learned from others counted: more are left aside.
pub const REDIS_SEEDS_KNOWN_MAX: usize = 64;
/// Bytes of a master's name at the sentinels.
pub const REDIS_MASTER_NAME_BYTES_MAX: usize = 255;
/// Masters of one Redis Cluster: an answer with more is not taken, the table before it stays.
pub const REDIS_CLUSTER_MASTERS_MAX: usize = 1_024;
/// Bytes of an answer about where Redis is: above it the connection is dropped and the next server asked.
pub const REDIS_TOPOLOGY_REPLY_BYTES_MAX: usize = 1024 * 1024;
/// Lookup, connect, TLS, login and answer of one server, together; then the next one is asked.
pub const REDIS_TOPOLOGY_NODE_DEADLINE_MS: u64 = 1_000;
/// From one answer to the next question when nobody asks for it.
pub const REDIS_TOPOLOGY_REFRESH_MS: u64 = 60_000;
/// From the end of one round of questions to the next, however often it is asked for.
pub const REDIS_TOPOLOGY_ROUND_GAP_MS: u64 = 100;
/// The longest wait after a round that found nothing: a fail-over is over in seconds.
pub const REDIS_TOPOLOGY_BACKOFF_MS_MAX: u64 = 2_000;
/// After a server of a cluster was lost, how long it is asked again and again who has its slots.
pub const REDIS_TOPOLOGY_LOOK_MS: u64 = 60_000;
/// Redirections that the finder has not looked at yet: above it the whole table is asked for instead.
pub const REDIS_REDIRECTS_MAX: usize = 64;
/// Name lookups under way at once, each a thread: above it a server counts as not reached.
pub const REDIS_TOPOLOGY_LOOKUPS_MAX: usize = 16;

// --- PostgreSQL store -------------------------------------------------------------------------------------------------

/// Requests that wait until the tables are there, on one shard. More: not done, and answered so.
pub const POSTGRES_WAITING_MAX: usize = 4_096;
/// Commands of one transaction, each of which locks its mailbox: more wait for the next. As many locks as the server has
/// room for in each connection.
pub const POSTGRES_BATCH_COMMANDS_MAX: usize = 64;
/// Bytes of the commands of one transaction; one alone is always taken.
pub const POSTGRES_BATCH_BYTES_MAX: usize = 262_144;
/// How often a command that was alone in its transaction and met a deadlock, or another conflict, is done once more.
pub const POSTGRES_CONFLICTS_MAX: u32 = 3;
/// How long a store knows that a claim was taken.
pub const POSTGRES_CLAIM_KEPT_SECONDS: u32 = 600;
/// How much later than its row says mail may have been put in, in milliseconds: a transaction ends after what it does.
pub const POSTGRES_COMMIT_MS: u64 = 100;
/// Events of one page of a mailbox, in bytes; the first entry is always handed out.
pub const POSTGRES_PAGE_BYTES_MAX: usize = 1_048_576;
/// An event that another program put into a table, in bytes. Longer: it counts as one that nobody can read.
pub const POSTGRES_EVENT_BYTES_MAX: usize = 2_097_152;
/// What one statement of a sweep takes out; the next follows at once.
pub const POSTGRES_SWEEP_ROWS_MAX: u32 = 1_000;
/// Making the tables, with the wait for other nodes and for whoever holds them.
pub const POSTGRES_SCHEMA_DEADLINE_MS: u32 = 60_000;
/// After the tables could not be made, how long until it is tried again.
pub const POSTGRES_SCHEMA_RETRY_MS: u64 = 1_000;
/// One sweep, or one look at the figures. Later: its link is made anew.
pub const POSTGRES_CHORE_DEADLINE_MS: u32 = 60_000;
/// A server that refuses to write for its own state is asked again so often whether it still does.
pub const POSTGRES_PROBE_INTERVAL_MS: u64 = 1_000;

// --- Redis store -----------------------------------------------------------------------------------------------------

/// Arrays inside of arrays in a reply. Deeper: the link is dropped.
pub const REDIS_REPLY_DEPTH_MAX: usize = 4;
/// Values in a reply. More: the link is dropped.
pub const REDIS_REPLY_ITEMS_MAX: usize = 65_536;
/// Commands of one link that are not answered. More: a command is not taken.
pub const REDIS_COMMANDS_MAX: usize = 16_384;
/// Bytes of the commands of one link that are not answered. More: a command is not taken.
pub const REDIS_COMMANDS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of one command. Longer: it is not taken.
pub const REDIS_COMMAND_BYTES_MAX: usize = 8 * 1024 * 1024;
/// From taking a command to its answer. Later: it is unknown, and the link is dropped.
pub const REDIS_COMMAND_TIMEOUT_MS: u64 = 2_000;
/// How often a script that the server has forgotten is given to it again for one command. More: the command is refused,
/// certainly not done; somebody flushes the scripts all the time.
pub const REDIS_RELOADS_MAX: u8 = 16;
/// Entries of one page of a mailbox.
pub const REDIS_PAGE_ENTRIES_MAX: u32 = 256;
/// Bytes of stored JSON above which a page ends, of mail or of templates; its last entry may go over.
pub const REDIS_PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one kept piece of mail, or template. Longer: it is not stored, or if another wrote it, undecodable.
pub const REDIS_ENTRY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Mail that one command puts into a mailbox: what it keeps the server from others for. More is put in by several.
pub const REDIS_APPEND_MAX: usize = 512;
/// Mail that one command takes out of a mailbox; more is taken out by several.
pub const REDIS_REMOVE_MAX: usize = 1_000;
/// Likewise of what lingers: each is read before it goes.
pub const REDIS_REMOVE_LINGERING_MAX: usize = 256;
/// How much longer than its mail the books of a mailbox are kept: the time a sweep has to come by. Seconds.
pub const REDIS_META_KEPT_SECONDS: u64 = 86_400;
/// How long the server remembers that the same message was claimed for a mailbox. Seconds.
pub const REDIS_CLAIM_KEPT_SECONDS: u64 = 600;
/// How much longer than its timeout a tracked notification is kept: the time a sweep has to come by. Seconds.
pub const REDIS_ACK_KEPT_SECONDS: u64 = 60;
/// Acknowledgements that one command gives up; more are left to the next.
pub const REDIS_ACK_EXPIRE_MAX: u32 = 1_000;
/// Mailboxes that one round of a sweep looks at; the next round follows at once.
pub const REDIS_SWEEP_MAILBOXES_MAX: u32 = 64;
/// Templates asked for at a time, about.
pub const REDIS_TEMPLATES_PAGE: u32 = 100;
/// While the server refuses to write, how often it is asked whether it does again.
pub const REDIS_PROBE_INTERVAL_MS: u64 = 1_000;

// --- Shutdown --------------------------------------------------------------------------------------------------------

/// From the signal to exit.
pub const SHUTDOWN_DEADLINE_MS: u64 = 8_000;
/// `reconnect_after_seconds` is drawn from this range, so that a fleet does not come back in one instant.
pub const RECONNECT_AFTER_SECONDS: std::ops::RangeInclusive<u32> = 1..=10;

// A frame that is allowed in must be allowed out again.
const _: () = assert!(SEND_BODY_BYTES_MAX < OUTBOX_BYTES_MAX);
// One write fits the kernel's buffer, or no connection would ever be through with one.
const _: () = assert!(WRITE_BYTES_MAX <= SOCKET_SEND_BUFFER_BYTES / 2);
// Age is for those who take a little; who takes nothing is closed before.
const _: () = assert!(OUTBOX_STALL_MS < OUTBOX_AGE_MS);
// One full outbox is never the worst of all by itself, and one fan-out does not hold its tenant back.
const _: () = assert!(OUTBOX_BYTES_MAX <= SHARD_OUTBOX_BYTES_MIN / 2);
const _: () = assert!(CLUSTER_PARCEL_BYTES_MAX < FANOUT_BYTES_PER_TENANT_MAX / 2);
// Who is held back has more than half of a tenant's share on the shard.
const _: () = assert!(2 * FANOUTS_WAITING_MAX / FANOUTS_PER_TENANT_MAX <= TENANTS_HELD_BACK_MAX);
const _: () = assert!(REDIS_PAYLOAD_BYTES_MAX + 64 * 1024 < OUTBOX_BYTES_MAX);
const _: () = assert!(RENDERED_BYTES_MAX + 64 * 1024 < OUTBOX_BYTES_MAX);
// A parcel fits a reply together with the name of its topic, and its message an outbox.
const _: () = assert!(CLUSTER_PARCEL_BYTES_MAX + 32 * 1024 < REDIS_REPLY_BYTES_MAX);
const _: () = assert!(CLUSTER_PARCEL_BYTES_MAX < OUTBOX_BYTES_MAX);
// Whoever waits for receipts has them in time.
const _: () = assert!(CLUSTER_FENCE_WAIT_MS < GATHER_DEADLINE_MS);
// Whatever REST takes fits a parcel, if no template made it longer: a body and, escaped once more, its message.
const _: () = assert!(3 * BATCH_BODY_BYTES_MAX + 64 * 1024 < CLUSTER_PARCEL_BYTES_MAX);

// A notification that was accepted comes back out of a table, and fits a page.
const _: () = assert!(RENDERED_BYTES_MAX + 64 * 1024 < POSTGRES_EVENT_BYTES_MAX);
// A head must fit the one read that brings it, and a token must fit a head.
const _: () = assert!(HTTP_HEAD_BYTES_MAX <= READ_BYTES_MAX);
const _: () = assert!(TOKEN_BYTES_MAX < HTTP_HEAD_BYTES_MAX);
// A connection is told its new token in one message.
const _: () = assert!(TOKEN_BYTES_MAX + 64 < WS_MESSAGE_BYTES_MAX);
// What is kept of a record leaves room in the receive buffer for its end; what is sealed at once fits what may wait.
const _: () =
    assert!(2 * TLS_INPUT_BYTES_MAX <= READ_BYTES_MAX && WRITE_BYTES_MAX + 16 * 1024 <= TLS_PENDING_BYTES_MAX);
// A WebSocket message may arrive in several reads but never needs more than its bound and one read in memory.
const _: () = assert!(WS_MESSAGE_BYTES_MAX <= READ_BYTES_MAX);
// Hysteresis needs a gap, and a turn must not be able to jump a lane from relieved to twice congested.
const _: () = assert!(LANE_OVERFLOW_RELIEVED * 4 < LANE_OVERFLOW_CONGESTED);
// Whoever is configured is asked, whatever was learned.
const _: () = assert!(REDIS_SEEDS_MAX < REDIS_SEEDS_KNOWN_MAX);
// The stop must be over before the ten seconds that orchestrators wait.
const _: () = assert!(SHUTDOWN_DEADLINE_MS + CLOSE_LINGER_MS <= 10_000);
// One command must not fill a link by itself.
const _: () = assert!(REDIS_COMMAND_BYTES_MAX <= REDIS_COMMANDS_BYTES_MAX / 2);
// A page and its last entry, with ids and marks, must fit a reply; a notification or template must fit an entry.
const _: () = assert!(
    REDIS_PAGE_BYTES_MAX + REDIS_ENTRY_BYTES_MAX + 200 * REDIS_PAGE_ENTRIES_MAX as usize <= REDIS_REPLY_BYTES_MAX
);
const _: () = assert!(REDIS_PAYLOAD_BYTES_MAX + 64 * 1024 <= REDIS_ENTRY_BYTES_MAX);
const _: () = assert!(SEND_BODY_BYTES_MAX + 64 * 1024 <= REDIS_ENTRY_BYTES_MAX);
const _: () = assert!(RENDERED_BYTES_MAX + 64 * 1024 <= REDIS_ENTRY_BYTES_MAX);
// Two outboxes that are put back at once fit a link, whatever their frames.
const _: () = assert!(2 * (OUTBOX_BYTES_MAX + OUTBOX_FRAMES_MAX * 400) <= REDIS_COMMANDS_BYTES_MAX);
const _: () = assert!(REDIS_ENTRY_BYTES_MAX + 16 * 1024 + 130 <= REDIS_COMMAND_BYTES_MAX);
