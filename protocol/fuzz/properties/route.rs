//! Targets of requests: which route, which parameter.
use protocol::http::Method;
use protocol::http::route::{self, QueryValue, ROUTE_LABELS, Route, RouteMatch};

const METHODS: [Method; 7] =
    [Method::Get, Method::Head, Method::Post, Method::Put, Method::Delete, Method::Options, Method::Other];

/// A target: a path, perhaps a query behind its first `?`.
pub fn route_and_query(bytes: &[u8]) {
    let Ok(target) = std::str::from_utf8(bytes) else { return };
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    check_path(path);
    for name in ["token", "channels", "", "a b"] {
        assert_eq!(route::query_value(query, name), looked_up(query, name), "{name:?} of {query:?}");
    }
}

fn check_path(path: &str) {
    let allow = route::allow(path);
    for method in METHODS {
        match route::route(method, path) {
            RouteMatch::NotFound => assert_eq!(allow, None, "{method:?}"),
            RouteMatch::MethodNotAllowed { allow: allowed, protected } => {
                assert_eq!(allow, Some(allowed), "{method:?}");
                assert_eq!(protected, path.starts_with("/api/v1/"));
            }
            RouteMatch::Found(found) => {
                assert!(allow.is_some_and(|allow| allow.split(',').any(|name| is_named(method, name))));
                assert!(ROUTE_LABELS[..ROUTE_LABELS.len() - 1].get(found.label_index()).is_some());
                assert_eq!(found.is_protected(), path.starts_with("/api/v1/"));
                if let Some(parameter) = parameter(&found) {
                    assert!(!parameter.is_empty());
                    let (_, template) = ROUTE_LABELS[found.label_index()];
                    let (before, after) = template.split_once('{').expect("a template with a parameter");
                    let escaped: String = parameter.bytes().map(|byte| format!("%{byte:02X}")).collect();
                    let spelled = [before, &escaped, after.split_once('}').expect("closed").1].concat();
                    assert_eq!(route::route(method, &spelled), RouteMatch::Found(found), "spelled {spelled}");
                }
            }
        }
    }
}

fn is_named(method: Method, name: &str) -> bool {
    format!("{method:?}").eq_ignore_ascii_case(name)
}

fn parameter(route: &Route) -> Option<String> {
    match route {
        Route::ChannelDetail(name)
        | Route::UserSubscriptions(name)
        | Route::TemplateGet(name)
        | Route::TemplatePut(name)
        | Route::TemplateDelete(name)
        | Route::TenantDetail(name)
        | Route::ClusterUser(name) => Some(name.clone()),
        _ => None,
    }
}

/// The slow way.
fn looked_up(query: Option<&str>, name: &str) -> QueryValue<'static> {
    let mut found = QueryValue::Absent;
    for pair in query.unwrap_or_default().split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if decoded(key).as_deref() == Some(name) {
            found = match found {
                QueryValue::Absent => decoded(value).map_or(QueryValue::Invalid, |value| QueryValue::One(value.into())),
                _ => QueryValue::Repeated,
            };
        }
    }
    found
}

fn decoded(raw: &str) -> Option<String> {
    let (mut out, mut bytes) = (Vec::new(), raw.bytes());
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = digit(bytes.next())?;
                (high << 4 | digit(bytes.next())?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}
