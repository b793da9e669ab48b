//! A batch: its items begin in order, and the answer is given when each has its outcome.
use super::answer::body_refusal;
use crate::conn::http::{Batch, HttpStage, Request};
use crate::effect::Effects;
use crate::key::ConnKey;
use crate::shard::Shard;
use crate::tables::gathers::GatherKind;
use protocol::clock::Now;
use protocol::http::error::ApiError;
use protocol::http::response::JSON;
use protocol::ids::{NotificationId, TenantId};
use protocol::notification::Source;
use protocol::publish::batch;
use protocol::publish::receipt::{self, ItemOutcome, Receipt};
use protocol::publish::request::PublishRequest;

impl Shard {
    pub(crate) fn serve_batch(
        &mut self,
        now: Now,
        key: ConnKey,
        request: Box<Request>,
        body: &[u8],
        effects: &mut Effects,
    ) {
        let parsed = batch::parse_batch(body).map_err(|error| body_refusal(&error)).and_then(|parsed| {
            self.refuse_if_congested(&request.tenant)?;
            Ok(parsed)
        });
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return self.respond_error(now, key, *request, error, effects),
        };
        self.metrics().batch_requests.add(1);
        self.metrics().batch_size.observe(parsed.items.len() as f64);
        let duplicates = if parsed.deduplicate { parsed.duplicates() } else { vec![false; parsed.items.len()] };
        let batch = Batch {
            id: self.new_uuid(now),
            total: parsed.items.len(),
            outcomes: parsed.items.iter().map(|_| None).collect(),
            waiting: parsed
                .items
                .into_iter()
                .zip(duplicates)
                .enumerate()
                .map(|(index, (item, twin))| (index, item, twin))
                .collect(),
            under_way: 0,
            is_beginning: false,
            stop_on_error: parsed.stop_on_error,
        };
        if let Some(http) = self.http_mut(key) {
            http.stage = HttpStage::Batch(request, Box::new(batch));
        }
        self.go_on_with_batch(now, key, effects);
    }

    /// Begins the items that may begin: all of them, or one at a time when an undelivered one stops the rest. Items that
    /// are answered while they begin are taken note of; what follows from that is seen to here.
    fn go_on_with_batch(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let Some((_, batch)) = self.batch_mut(key) else { return };
        batch.is_beginning = true;
        while let Some((tenant, index, item)) = self.next_item(key) {
            self.begin_item(now, key, tenant, index, item, effects);
        }
        let Some((_, batch)) = self.batch_mut(key) else { return };
        batch.is_beginning = false;
        if batch.under_way == 0 && batch.waiting.is_empty() {
            self.answer_batch(now, key, effects);
        }
    }

    /// The next item that may begin; twins of earlier ones are skipped.
    fn next_item(&mut self, key: ConnKey) -> Option<(TenantId, usize, PublishRequest)> {
        let (request, batch) = self.batch_mut(key)?;
        if batch.under_way > 0 && batch.stop_on_error {
            return None;
        }
        while let Some((index, item, is_twin)) = batch.waiting.pop_front() {
            if !is_twin {
                return Some((request.tenant.clone(), index, item));
            }
            batch.outcomes[index] = Some(ItemOutcome::Skipped);
        }
        None
    }

    fn begin_item(
        &mut self,
        now: Now,
        key: ConnKey,
        tenant: TenantId,
        index: usize,
        item: PublishRequest,
        effects: &mut Effects,
    ) {
        let content = self.refuse_colons(&item.target).and_then(|()| self.content(&tenant, item.content));
        let content = match content {
            Ok(content) => content,
            Err(error) => return self.item_failed(key, index, &error),
        };
        let Some(publication) = self.accept(now, tenant, item.target, &content, &Source::Http) else {
            let id = NotificationId(self.new_uuid(now));
            return self.item_sent(key, index, id, Receipt::default(), 0);
        };
        let kind = GatherKind::BatchItem { index, id: publication.id, tally: Receipt::default(), elsewhere: 0 };
        let gather = self.open_gather(now, key, None, kind);
        if let Some((_, batch)) = self.batch_mut(key) {
            batch.under_way += 1;
        }
        self.dispatch(now, publication, Some(gather), effects);
        self.answer_if_complete(now, gather, effects);
    }

    /// Everything about an item came, or its deadline passed.
    #[expect(clippy::too_many_arguments, reason = "one item, spelled out")]
    pub(crate) fn item_answered(
        &mut self,
        now: Now,
        key: ConnKey,
        index: usize,
        id: NotificationId,
        receipt: Receipt,
        elsewhere: u64,
        effects: &mut Effects,
    ) {
        self.item_sent(key, index, id, receipt, elsewhere);
        let Some((_, batch)) = self.batch_mut(key) else { return };
        batch.under_way -= 1;
        if batch.under_way == 0 && !batch.is_beginning {
            self.go_on_with_batch(now, key, effects);
        }
    }

    /// An item was dispatched and counted. With `stop_on_error`, one that reached nobody skips the rest.
    fn item_sent(&mut self, key: ConnKey, index: usize, id: NotificationId, receipt: Receipt, elsewhere: u64) {
        let delivered_local = self.config.cluster.map(|_| receipt.delivered_to.saturating_sub(elsewhere));
        let Some((_, batch)) = self.batch_mut(key) else { return };
        batch.outcomes[index] = Some(ItemOutcome::Sent { id, receipt, delivered_local });
        if batch.stop_on_error && receipt.delivered_to == 0 && receipt.queued == 0 {
            for (index, ..) in batch.waiting.drain(..) {
                batch.outcomes[index] = Some(ItemOutcome::StoppedEarly);
            }
        }
    }

    /// An item could not be rendered. With `stop_on_error` the rest is absent from the results (contract §1.8).
    fn item_failed(&mut self, key: ConnKey, index: usize, error: &ApiError) {
        let Some((_, batch)) = self.batch_mut(key) else { return };
        // As the original words it; what is no fault of the item is said as it is.
        let words = match error.status {
            400 => format!("Validation error: {}", error.message),
            _ => error.message.to_string(),
        };
        batch.outcomes[index] = Some(ItemOutcome::Failed(words));
        if batch.stop_on_error {
            batch.waiting.clear();
        }
    }

    fn answer_batch(&mut self, now: Now, key: ConnKey, effects: &mut Effects) {
        let Some(http) = self.http_mut(key) else { return };
        let HttpStage::Batch(request, batch) = std::mem::replace(&mut http.stage, HttpStage::Head) else { return };
        let outcomes: Vec<ItemOutcome> = batch.outcomes.into_iter().flatten().collect();
        let mut body = Vec::with_capacity(256 + 180 * outcomes.len());
        receipt::write_batch(&mut body, batch.id, &outcomes, batch.total, now.unix_ns);
        self.respond(now, key, *request, 200, Some(JSON), &body, effects);
        self.resume(now, key, effects);
    }

    fn batch_mut(&mut self, key: ConnKey) -> Option<(&mut Request, &mut Batch)> {
        match &mut self.http_mut(key)?.stage {
            HttpStage::Batch(request, batch) => Some((request, batch)),
            _ => None,
        }
    }
}
