//! Templates (C-15): for this store and for the next.
use crate::bench::{Bench, Kind, Store};
use protocol::ids::TenantId;
use protocol::store::{StoreReply, StoreRequest};
use protocol::template::{self, Template};
use std::sync::Arc;

rows! {
    everywhere:
        templates_are_kept_changed_and_forgotten,
        thousands_of_templates_are_loaded_each_once;
    on_servers:
        templates_are_found_exactly_by_the_next_store,
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).expect("a tenant's name")
}

fn template(id: &str, payload: &str) -> Arc<Template> {
    let body = format!(r#"{{"id":"{id}","name":"é","event_type":"e","payload_template":{payload}}}"#);
    Arc::new(template::parse_create(body.as_bytes(), 1_767_323_045_123_456_789).expect("a template"))
}

fn put(of: &str, template: &Arc<Template>) -> StoreRequest {
    StoreRequest::PutTemplate { tenant: tenant(of), template: Arc::clone(template) }
}

fn delete(of: &str, id: &str) -> StoreRequest {
    StoreRequest::DeleteTemplate { tenant: tenant(of), id: id.into() }
}

fn done(store: &mut Store, request: StoreRequest) {
    let reply = store.ask(request);
    assert!(matches!(reply, StoreReply::Done), "{reply:?}");
}

/// In the order of tenant and id: a store has none to promise.
fn load(store: &mut Store) -> Vec<(TenantId, Arc<Template>)> {
    match store.ask(StoreRequest::LoadTemplates) {
        StoreReply::Templates(mut all) => {
            all.sort_by(|(one, a), (two, b)| (one, &a.id).cmp(&(two, &b.id)));
            all
        }
        other => panic!("{other:?}"),
    }
}

fn templates_are_kept_changed_and_forgotten(kind: Kind) {
    let mut bench = Bench::new(kind);
    let store = &mut bench.store;
    let (old, new, other) = (template("a:b", "1"), template("a:b", r#"{"x":"{{y}}"}"#), template("a", "2"));
    assert!(load(store).is_empty());
    for request in [put("acme", &old), put("acme", &other), put("globex", &old), put("acme", &new), put("acme", &new)] {
        done(store, request);
    }
    let all = [(tenant("acme"), Arc::clone(&other)), (tenant("acme"), new), (tenant("globex"), old)];
    assert_eq!(load(store), all);
    for request in [delete("acme", "a:b"), delete("acme", "a:b"), delete("nobody", "a"), delete("globex", "a")] {
        done(store, request);
    }
    assert_eq!(load(store), [all[0].clone(), all[2].clone()]);
}

fn thousands_of_templates_are_loaded_each_once(kind: Kind) {
    let mut bench = Bench::new(kind);
    let store = &mut bench.store;
    let all: Vec<_> = (0..3_000).map(|n| (format!("t{}", n % 2), template(&format!("id-{:04}", n / 2), "1"))).collect();
    let tickets: Vec<u64> = all.iter().map(|(of, template)| store.submit(put(of, template))).collect();
    store.turn(&[]);
    store.until("all are answered", |d| d.replies.len() == tickets.len());
    assert!(store.replies.drain(..).all(|(_, reply)| matches!(reply, StoreReply::Done)));
    let mut expected: Vec<_> = all.into_iter().map(|(of, template)| (tenant(&of), template)).collect();
    expected.sort_by(|(one, a), (two, b)| (one, &a.id).cmp(&(two, &b.id)));
    assert!(load(store) == expected);
}

fn templates_are_found_exactly_by_the_next_store(kind: Kind) {
    let mut bench = Bench::new(kind);
    let long = format!("\"{}\"", "x".repeat(900_000));
    let payloads = [r#"{"b":1.50,"a":"\u0000{{x}}","b":-0.0}"#, "null", r#""é😀\/""#, "1e999999", &long];
    let all: Vec<_> = payloads.iter().zip(0..).map(|(payload, n)| template(&format!("t{n}"), payload)).collect();
    for template in &all {
        done(&mut bench.store, put("acme", template));
    }
    let mut next = bench.open();
    let expected: Vec<_> = all.into_iter().map(|template| (tenant("acme"), template)).collect();
    assert!(load(&mut next) == expected);
    done(&mut next, delete("acme", "t1"));
    assert_eq!(load(&mut bench.store).len(), 4, "what one forgets the other does not find");
}
