//! Method and path to a route, and query strings (contract §1.1).
use super::Method;
use crate::limits::{BATCH_BODY_BYTES_MAX, OTHER_BODY_BYTES_MAX, SEND_BODY_BYTES_MAX};
use crate::rate_limit::LimitKind;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// What a request asks for; the strings are path parameters, percent-decoded and never empty. `HEAD` is the route of
/// its `GET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `GET /health`.
    Health,
    /// `GET /health/live`.
    Live,
    /// `GET /health/ready`.
    Ready,
    /// `GET /metrics`.
    Metrics,
    /// `GET /stats`.
    Stats,
    /// `GET /ws`.
    WebSocket,
    /// `GET /sse`.
    Sse,
    /// `POST /api/v1/notifications/send`.
    Send,
    /// `POST /api/v1/notifications/send-to-users`.
    SendToUsers,
    /// `POST /api/v1/notifications/broadcast`.
    Broadcast,
    /// `POST /api/v1/notifications/channel`.
    Channel,
    /// `POST /api/v1/notifications/channels`.
    Channels,
    /// `POST /api/v1/notifications/batch`.
    Batch,
    /// `GET /api/v1/channels`.
    ChannelList,
    /// `GET /api/v1/channels/{name}`.
    ChannelDetail(String),
    /// `GET /api/v1/users/{user_id}/subscriptions`.
    UserSubscriptions(String),
    /// `POST /api/v1/users/{user_id}/disconnect`.
    UserDisconnect(String),
    /// `POST /api/v1/tokens/revoke`.
    TokenRevoke,
    /// `POST /api/v1/templates`.
    TemplateCreate,
    /// `GET /api/v1/templates`.
    TemplateList,
    /// `GET /api/v1/templates/{id}`.
    TemplateGet(String),
    /// `PUT /api/v1/templates/{id}`.
    TemplatePut(String),
    /// `DELETE /api/v1/templates/{id}`.
    TemplateDelete(String),
    /// `GET /api/v1/tenants`.
    TenantList,
    /// `GET /api/v1/tenants/{tenant_id}`.
    TenantDetail(String),
    /// `GET /api/v1/cluster/status`.
    ClusterStatus,
    /// `GET /api/v1/cluster/users/{user_id}`.
    ClusterUser(String),
}

/// What a method and a path come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteMatch {
    /// A route.
    Found(Route),
    /// The path exists, the method does not: 405.
    MethodNotAllowed {
        /// The `allow` header.
        allow: &'static str,
        /// Whether the path needs an API key, whose absence is told first: 401.
        protected: bool,
    },
    /// No such path: 404, without asking for a key (C-6).
    NotFound,
}

/// The paths, in the order of [`TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Health,
    Live,
    Ready,
    Metrics,
    Stats,
    WebSocket,
    Sse,
    Send,
    SendToUsers,
    Broadcast,
    Channel,
    Channels,
    Batch,
    ChannelList,
    ChannelDetail,
    UserSubscriptions,
    UserDisconnect,
    TokenRevoke,
    Templates,
    Template,
    TenantList,
    TenantDetail,
    ClusterStatus,
    ClusterUser,
}

struct Row {
    path: Path,
    /// The path; one segment of it may be a parameter in braces.
    template: &'static str,
    /// The methods of its routes; `HEAD` is left out, as it is the route of its `GET`.
    methods: &'static [&'static str],
    /// The `allow` header, in the original's form.
    allow: &'static str,
}

const fn get(path: Path, template: &'static str) -> Row {
    Row { path, template, methods: &["GET"], allow: "GET,HEAD" }
}

const fn post(path: Path, template: &'static str) -> Row {
    Row { path, template, methods: &["POST"], allow: "POST" }
}

const TABLE: [Row; 24] = [
    get(Path::Health, "/health"),
    get(Path::Live, "/health/live"),
    get(Path::Ready, "/health/ready"),
    get(Path::Metrics, "/metrics"),
    get(Path::Stats, "/stats"),
    get(Path::WebSocket, "/ws"),
    get(Path::Sse, "/sse"),
    post(Path::Send, "/api/v1/notifications/send"),
    post(Path::SendToUsers, "/api/v1/notifications/send-to-users"),
    post(Path::Broadcast, "/api/v1/notifications/broadcast"),
    post(Path::Channel, "/api/v1/notifications/channel"),
    post(Path::Channels, "/api/v1/notifications/channels"),
    post(Path::Batch, "/api/v1/notifications/batch"),
    get(Path::ChannelList, "/api/v1/channels"),
    get(Path::ChannelDetail, "/api/v1/channels/{name}"),
    get(Path::UserSubscriptions, "/api/v1/users/{user_id}/subscriptions"),
    post(Path::UserDisconnect, "/api/v1/users/{user_id}/disconnect"),
    post(Path::TokenRevoke, "/api/v1/tokens/revoke"),
    Row { path: Path::Templates, template: "/api/v1/templates", methods: &["GET", "POST"], allow: "POST,GET,HEAD" },
    Row {
        path: Path::Template,
        template: "/api/v1/templates/{id}",
        methods: &["GET", "PUT", "DELETE"],
        allow: "GET,HEAD,PUT,DELETE",
    },
    get(Path::TenantList, "/api/v1/tenants"),
    get(Path::TenantDetail, "/api/v1/tenants/{tenant_id}"),
    get(Path::ClusterStatus, "/api/v1/cluster/status"),
    get(Path::ClusterUser, "/api/v1/cluster/users/{user_id}"),
];

/// Labels of metrics, method and path: one pair per route, the path as it stands in the documentation, and a last one,
/// `("other", "other")`, for everything that is no route, so that strangers cannot make labels.
pub const ROUTE_LABELS: [(&str, &str); ROUTES + 1] = {
    let mut labels = [("other", "other"); ROUTES + 1];
    let mut at = 0;
    while at < TABLE.len() {
        let mut method = 0;
        while method < TABLE[at].methods.len() {
            labels[LABELS_BEFORE[at] + method] = (TABLE[at].methods[method], TABLE[at].template);
            method += 1;
        }
        at += 1;
    }
    labels
};

/// Pairs of method and path.
const ROUTES: usize = LABELS_BEFORE[TABLE.len()];

/// How many labels stand before those of each path.
const LABELS_BEFORE: [usize; TABLE.len() + 1] = {
    let mut before = [0; TABLE.len() + 1];
    let mut at = 0;
    while at < TABLE.len() {
        // A path is looked up by its position in its enum.
        assert!(TABLE[at].path as usize == at);
        before[at + 1] = before[at] + TABLE[at].methods.len();
        at += 1;
    }
    before
};

/// Finds the route of a raw path. Nothing is normalised: `/health/` and `//health` do not exist. A parameter that is
/// empty, or that does not decode to UTF-8, is a path that does not exist, too.
///
/// [`Method::Options`] is no route's method: answer it before, with [`allow`].
pub fn route(method: Method, path: &str) -> RouteMatch {
    let Some((row, parameter)) = find(path) else { return RouteMatch::NotFound };
    let method = if method == Method::Head { Method::Get } else { method };
    let name = parameter.into_owned();
    RouteMatch::Found(match (row.path, method) {
        (Path::Health, Method::Get) => Route::Health,
        (Path::Live, Method::Get) => Route::Live,
        (Path::Ready, Method::Get) => Route::Ready,
        (Path::Metrics, Method::Get) => Route::Metrics,
        (Path::Stats, Method::Get) => Route::Stats,
        (Path::WebSocket, Method::Get) => Route::WebSocket,
        (Path::Sse, Method::Get) => Route::Sse,
        (Path::Send, Method::Post) => Route::Send,
        (Path::SendToUsers, Method::Post) => Route::SendToUsers,
        (Path::Broadcast, Method::Post) => Route::Broadcast,
        (Path::Channel, Method::Post) => Route::Channel,
        (Path::Channels, Method::Post) => Route::Channels,
        (Path::Batch, Method::Post) => Route::Batch,
        (Path::ChannelList, Method::Get) => Route::ChannelList,
        (Path::ChannelDetail, Method::Get) => Route::ChannelDetail(name),
        (Path::UserSubscriptions, Method::Get) => Route::UserSubscriptions(name),
        (Path::UserDisconnect, Method::Post) => Route::UserDisconnect(name),
        (Path::TokenRevoke, Method::Post) => Route::TokenRevoke,
        (Path::Templates, Method::Post) => Route::TemplateCreate,
        (Path::Templates, Method::Get) => Route::TemplateList,
        (Path::Template, Method::Get) => Route::TemplateGet(name),
        (Path::Template, Method::Put) => Route::TemplatePut(name),
        (Path::Template, Method::Delete) => Route::TemplateDelete(name),
        (Path::TenantList, Method::Get) => Route::TenantList,
        (Path::TenantDetail, Method::Get) => Route::TenantDetail(name),
        (Path::ClusterStatus, Method::Get) => Route::ClusterStatus,
        (Path::ClusterUser, Method::Get) => Route::ClusterUser(name),
        _ => return RouteMatch::MethodNotAllowed { allow: row.allow, protected: is_protected(row.path) },
    })
}

/// The methods of a path, as the `allow` header says them; `None` for a path that does not exist.
pub fn allow(path: &str) -> Option<&'static str> {
    find(path).map(|(row, _)| row.allow)
}

/// Which limit requests to a path meet, whatever their method; `None` for a path without one, or that does not exist
/// (contract §1.1, C-6). [`Method::Options`] meets none.
pub fn limit(path: &str) -> Option<LimitKind> {
    match find(path)?.0.path {
        Path::Health | Path::Live | Path::Ready | Path::Metrics => None,
        Path::WebSocket | Path::Sse => Some(LimitKind::Connect),
        _ => Some(LimitKind::Http),
    }
}

impl Route {
    /// The position of the route in [`ROUTE_LABELS`].
    pub fn label_index(&self) -> usize {
        // Within a path, in the order of its row's methods.
        let method = match self {
            Route::TemplateCreate | Route::TemplatePut(_) => 1,
            Route::TemplateDelete(_) => 2,
            _ => 0,
        };
        LABELS_BEFORE[self.path() as usize] + method
    }

    /// Whether the route needs the API key: all of `/api/v1`.
    pub fn is_protected(&self) -> bool {
        is_protected(self.path())
    }

    /// The longest body, in bytes. Of a route that does not read one it bounds what is thrown away.
    pub fn body_bytes_max(&self) -> usize {
        match self {
            Route::Send | Route::SendToUsers | Route::Broadcast | Route::Channel | Route::Channels => {
                SEND_BODY_BYTES_MAX
            }
            Route::TokenRevoke => SEND_BODY_BYTES_MAX,
            Route::Batch => BATCH_BODY_BYTES_MAX,
            _ => OTHER_BODY_BYTES_MAX,
        }
    }

    /// Whether the route reads a body, which then must be JSON.
    pub fn reads_body(&self) -> bool {
        matches!(
            self,
            Route::Send
                | Route::SendToUsers
                | Route::Broadcast
                | Route::Channel
                | Route::Channels
                | Route::Batch
                | Route::TokenRevoke
                | Route::TemplateCreate
                | Route::TemplatePut(_)
        )
    }

    fn path(&self) -> Path {
        match self {
            Route::Health => Path::Health,
            Route::Live => Path::Live,
            Route::Ready => Path::Ready,
            Route::Metrics => Path::Metrics,
            Route::Stats => Path::Stats,
            Route::WebSocket => Path::WebSocket,
            Route::Sse => Path::Sse,
            Route::Send => Path::Send,
            Route::SendToUsers => Path::SendToUsers,
            Route::Broadcast => Path::Broadcast,
            Route::Channel => Path::Channel,
            Route::Channels => Path::Channels,
            Route::Batch => Path::Batch,
            Route::ChannelList => Path::ChannelList,
            Route::ChannelDetail(_) => Path::ChannelDetail,
            Route::UserSubscriptions(_) => Path::UserSubscriptions,
            Route::UserDisconnect(_) => Path::UserDisconnect,
            Route::TokenRevoke => Path::TokenRevoke,
            Route::TemplateCreate | Route::TemplateList => Path::Templates,
            Route::TemplateGet(_) | Route::TemplatePut(_) | Route::TemplateDelete(_) => Path::Template,
            Route::TenantList => Path::TenantList,
            Route::TenantDetail(_) => Path::TenantDetail,
            Route::ClusterStatus => Path::ClusterStatus,
            Route::ClusterUser(_) => Path::ClusterUser,
        }
    }
}

fn is_protected(path: Path) -> bool {
    TABLE[path as usize].template.starts_with("/api/v1/")
}

/// The row of a path and its parameter, empty where the row has none.
fn find(path: &str) -> Option<(&'static Row, Cow<'_, str>)> {
    static ROWS: [Row; TABLE.len()] = TABLE;
    ROWS.iter().find_map(|row| match row.template.split_once('{') {
        None => (path == row.template).then_some((row, Cow::Borrowed(""))),
        Some((before, after)) => {
            let after = after.split_once('}').map_or("", |(_, after)| after);
            let raw = path.strip_prefix(before)?.strip_suffix(after)?;
            let fits = !raw.is_empty() && !raw.contains('/');
            Some((row, if fits { percent_decoded(raw)? } else { return None }))
        }
    })
}

/// The value of a query parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryValue<'a> {
    /// The name does not occur.
    Absent,
    /// It occurs once, with this value, decoded; empty without a `=`.
    One(Cow<'a, str>),
    /// It occurs more than once.
    Repeated,
    /// It occurs once, and its value does not decode to UTF-8.
    Invalid,
}

/// Looks a parameter up in a raw query (`application/x-www-form-urlencoded`: `&` between pairs, `+` for a blank).
/// Names are decoded, too; of other parameters nothing is checked.
pub fn query_value<'a>(query: Option<&'a str>, name: &str) -> QueryValue<'a> {
    let pairs = query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(raw, _)| form_decoded(raw).is_some_and(|decoded| decoded == name));
    match (values.next(), values.next()) {
        (None, _) => QueryValue::Absent,
        (Some(_), Some(_)) => QueryValue::Repeated,
        (Some((_, raw)), None) => form_decoded(raw).map_or(QueryValue::Invalid, QueryValue::One),
    }
}

fn form_decoded(raw: &str) -> Option<Cow<'_, str>> {
    if raw.contains('+') {
        let blanks = raw.replace('+', " ");
        return percent_decoded(&blanks).map(|decoded| Cow::Owned(decoded.into_owned()));
    }
    percent_decoded(raw)
}

/// `None` for a `%` without two hexadecimal digits, which the library would leave as it is, and for what is not UTF-8.
fn percent_decoded(raw: &str) -> Option<Cow<'_, str>> {
    let is_escape = |rest: &str| rest.as_bytes().get(..2).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    if !raw.split('%').skip(1).all(is_escape) {
        return None;
    }
    percent_decode_str(raw).decode_utf8().ok()
}

#[cfg(test)]
mod tests;
