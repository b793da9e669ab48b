//! Knowing where Redis is, when that is not always the same: a master that sentinels watch over, or a cluster.
//!
//! | module | what it is | touches sockets |
//! |---|---|---|
//! | [`url`] | `REDIS_URL` in all its forms | no |
//! | [`slots`] | hash slots, their table, redirections | no |
//! | [`inquiry`] | one question to one server and its answer | no |
//! | [`watch`] | the subscription at a sentinel | no |
//! | [`search`] | whom to ask next, and which answer holds | no |
//! | [`line`](mod@line), `lookout` | one connection at a time; the one to the watched sentinel | yes |
//! | [`finder`] | the thing that knows: asks, watches, asks again | yes |
//! | [`scout`] | a finder on a thread of its own, for the links of all shards | yes |
//!
//! A node turns one finder on a thread of its own, and its links are told by [`scout::Whereabouts`].
//!
//! **How a link is to use it.** Whoever owns links owns one [`finder::Finder`] beside them and turns it as it turns them;
//! it has two sockets. A finder of a plain `redis://` knows its answer from the start and wants nothing, so that the
//! owner need not tell the forms apart.
//! - Before a link connects it takes [`finder::Finder::master_url`], or for a cluster that of
//!   [`slots::SlotTable::owner_of_key`] by [`finder::Finder::url_of`]. While there is none it waits.
//! - When its connection ends, or its server says READONLY, the owner calls [`finder::Finder::invalidate`] and the link
//!   asks again, as after any loss: the same address comes back only if its server still says that it is the master. For
//!   a cluster it calls [`finder::Finder::refresh`], which keeps the other masters in use.
//! - When [`finder::Finder::changes`] has grown and the link's master is not the one of now, the link is made anew: a
//!   master that was cut off does not end its connections by itself.
//! - MOVED goes to [`finder::Finder::redirected`], and the command to the node it names; ASK only the latter, after
//!   `ASKING`.
//! - Every link is also to ask its own connection by ROLE before it trusts it, if it cannot bear to speak to a replica
//!   for the moment between the finder's question and its own connect.
//!
//! The rules are those of Redis' guidelines for clients of Sentinel and of the specification of Redis Cluster: short
//! deadlines, every sentinel in turn, the one that answered first the next time, ROLE before trust, a new question after
//! every loss.
pub mod finder;
pub mod inquiry;
pub mod line;
mod lookout;
pub mod node;
pub mod scout;
pub mod search;
pub mod slots;
pub mod talk;
pub mod url;
pub mod watch;
