use super::*;

const METHODS: [Method; 7] =
    [Method::Get, Method::Head, Method::Post, Method::Put, Method::Delete, Method::Options, Method::Other];

#[test]
fn every_route_is_found_and_labelled() {
    use Method::{Delete, Get, Post, Put};
    let x = || "x".to_owned();
    let rows = [
        (Get, "/health", Route::Health, "/health"),
        (Get, "/health/live", Route::Live, "/health/live"),
        (Get, "/health/ready", Route::Ready, "/health/ready"),
        (Get, "/metrics", Route::Metrics, "/metrics"),
        (Get, "/stats", Route::Stats, "/stats"),
        (Get, "/ws", Route::WebSocket, "/ws"),
        (Get, "/sse", Route::Sse, "/sse"),
        (Post, "/api/v1/notifications/send", Route::Send, "/api/v1/notifications/send"),
        (Post, "/api/v1/notifications/send-to-users", Route::SendToUsers, "/api/v1/notifications/send-to-users"),
        (Post, "/api/v1/notifications/broadcast", Route::Broadcast, "/api/v1/notifications/broadcast"),
        (Post, "/api/v1/notifications/channel", Route::Channel, "/api/v1/notifications/channel"),
        (Post, "/api/v1/notifications/channels", Route::Channels, "/api/v1/notifications/channels"),
        (Post, "/api/v1/notifications/batch", Route::Batch, "/api/v1/notifications/batch"),
        (Get, "/api/v1/channels", Route::ChannelList, "/api/v1/channels"),
        (Get, "/api/v1/channels/x", Route::ChannelDetail(x()), "/api/v1/channels/{name}"),
        (Get, "/api/v1/users/x/subscriptions", Route::UserSubscriptions(x()), "/api/v1/users/{user_id}/subscriptions"),
        (Post, "/api/v1/users/x/disconnect", Route::UserDisconnect(x()), "/api/v1/users/{user_id}/disconnect"),
        (Post, "/api/v1/tokens/revoke", Route::TokenRevoke, "/api/v1/tokens/revoke"),
        (Post, "/api/v1/templates", Route::TemplateCreate, "/api/v1/templates"),
        (Get, "/api/v1/templates", Route::TemplateList, "/api/v1/templates"),
        (Get, "/api/v1/templates/x", Route::TemplateGet(x()), "/api/v1/templates/{id}"),
        (Put, "/api/v1/templates/x", Route::TemplatePut(x()), "/api/v1/templates/{id}"),
        (Delete, "/api/v1/templates/x", Route::TemplateDelete(x()), "/api/v1/templates/{id}"),
        (Get, "/api/v1/tenants", Route::TenantList, "/api/v1/tenants"),
        (Get, "/api/v1/tenants/x", Route::TenantDetail(x()), "/api/v1/tenants/{tenant_id}"),
        (Get, "/api/v1/cluster/status", Route::ClusterStatus, "/api/v1/cluster/status"),
        (Get, "/api/v1/cluster/users/x", Route::ClusterUser(x()), "/api/v1/cluster/users/{user_id}"),
    ];
    let mut labels = Vec::new();
    for (method, path, expected, label) in rows {
        let name = format!("{method:?}").to_uppercase();
        assert_eq!(ROUTE_LABELS[expected.label_index()], (&*name, label));
        labels.push(expected.label_index());
        assert_eq!(expected.is_protected(), path.starts_with("/api/v1/"), "{path}");
        let has_body = matches!(method, Post | Put) && !matches!(expected, Route::UserDisconnect(_));
        assert_eq!(expected.reads_body(), has_body, "{path}");
        assert_eq!(route(method, path), RouteMatch::Found(expected.clone()), "{path}");
        if method == Get {
            assert_eq!(route(Method::Head, path), RouteMatch::Found(expected), "HEAD {path}");
        }
    }
    labels.sort_unstable();
    assert!(labels.iter().copied().eq(0..ROUTE_LABELS.len() - 1), "every route has a label of its own: {labels:?}");
    assert_eq!(ROUTE_LABELS.last(), Some(&("other", "other")));
}

#[test]
fn allow_says_exactly_what_is_found() {
    for (_, label) in &ROUTE_LABELS[..ROUTE_LABELS.len() - 1] {
        let path = label.replace(['{', '}'], "");
        let allowed = allow(&path).unwrap();
        for method in METHODS {
            let name = format!("{method:?}").to_uppercase();
            match route(method, &path) {
                RouteMatch::Found(_) => assert!(allowed.split(',').any(|known| known == name), "{name} {path}"),
                other => {
                    let protected = path.starts_with("/api/v1/");
                    assert_eq!(other, RouteMatch::MethodNotAllowed { allow: allowed, protected }, "{name} {path}");
                    assert!(!allowed.split(',').any(|known| known == name), "{name} {path}");
                }
            }
        }
    }
}

#[test]
fn other_paths_do_not_exist() {
    let paths = [
        "",
        "/",
        "*",
        "/health/",
        "//health",
        "/Health",
        "/healt%68",
        "/api/v1",
        "/api/v1/",
        "/api/v1/stats",
        "/api/v1/stats/acks",
        "/api/v1/channels/",
        "/api/v1/channels//",
        "/api/v1/channels/a/b",
        "/api/v1/channels/a/",
        "/api/v1/users//subscriptions",
        "/api/v1/users/subscriptions",
        "/api/v1/users/a/b/subscriptions",
        "/api/v1/users/a/subscriptions/",
        "/api/v1/notifications/send/x",
        "/api/v1/cluster/users/",
        "/api/v1/channels/%",
        "/api/v1/channels/%4",
        "/api/v1/channels/%zz",
        "/api/v1/channels/%%41",
        "/api/v1/channels/%ff",
        "/api/v1/channels/{name}/x",
    ];
    for path in paths {
        for method in METHODS {
            assert_eq!(route(method, path), RouteMatch::NotFound, "{path}");
        }
        assert_eq!(allow(path), None, "{path}");
    }
}

#[test]
fn parameters_are_decoded_once() {
    let rows = [
        ("dup%2Fx", "dup/x"),
        ("%E8%A8%82%e5%96%ae", "訂單"),
        ("a%2520b", "a%20b"),
        ("a+b", "a+b"),
        ("acme:t1", "acme:t1"),
        ("..", ".."),
        ("subscriptions", "subscriptions"),
    ];
    for (raw, decoded) in rows {
        let found = RouteMatch::Found(Route::UserSubscriptions(decoded.into()));
        assert_eq!(route(Method::Get, &format!("/api/v1/users/{raw}/subscriptions")), found, "{raw}");
    }
}

#[test]
fn bodies_are_bounded_by_route() {
    for send in [Route::Send, Route::SendToUsers, Route::Broadcast, Route::Channel, Route::Channels] {
        assert_eq!(send.body_bytes_max(), 65_536);
    }
    assert_eq!(Route::Batch.body_bytes_max(), 1_048_576);
    assert_eq!(Route::TemplateCreate.body_bytes_max(), 2_097_152);
    assert_eq!(Route::Health.body_bytes_max(), 2_097_152);
}

#[test]
fn paths_have_their_limits_whatever_the_method() {
    let rows = [
        ("/health", None),
        ("/health/live", None),
        ("/health/ready", None),
        ("/metrics", None),
        ("/", None),
        ("/api/v1/nothing", None),
        ("/api/v1/channels/", None),
        ("/stats", Some(LimitKind::Http)),
        ("/api/v1/notifications/send", Some(LimitKind::Http)),
        ("/api/v1/channels/orders", Some(LimitKind::Http)),
        ("/api/v1/cluster/status", Some(LimitKind::Http)),
        ("/ws", Some(LimitKind::Connect)),
        ("/sse", Some(LimitKind::Connect)),
    ];
    for (path, expected) in rows {
        assert_eq!(limit(path), expected, "{path}");
    }
}

#[test]
fn query_values_are_looked_up_and_decoded() {
    let one = |value: &str| QueryValue::One(Cow::Owned(value.to_owned()));
    let rows = [
        (None, QueryValue::Absent),
        (Some(""), QueryValue::Absent),
        (Some("tokens=a&Token=b"), QueryValue::Absent),
        (Some("token=a.b.c"), one("a.b.c")),
        (Some("x=1&token=a&y"), one("a")),
        (Some("token"), one("")),
        (Some("token="), one("")),
        (Some("token=a=b"), one("a=b")),
        (Some("token=a+b%2Bc%20d"), one("a b+c d")),
        (Some("tok%65n=a"), one("a")),
        (Some("token=%E8%A8%82"), one("訂")),
        (Some("x=%zz&token=a"), one("a")),
        (Some("token=a&token=a"), QueryValue::Repeated),
        (Some("token=%zz&tok%65n"), QueryValue::Repeated),
        (Some("token=%zz"), QueryValue::Invalid),
        (Some("token=+%f"), QueryValue::Invalid),
        (Some("token=%ff"), QueryValue::Invalid),
    ];
    for (query, expected) in rows {
        assert_eq!(query_value(query, "token"), expected, "{query:?}");
    }
}
