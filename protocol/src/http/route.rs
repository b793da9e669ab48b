//! Method and path to a route, and query strings (contract §1.1).
use super::Method;
use crate::limits::{BATCH_BODY_BYTES_MAX, OTHER_BODY_BYTES_MAX, SEND_BODY_BYTES_MAX};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// What a request asks for; the strings are path parameters, percent-decoded and never empty. `HEAD` is the route of
/// its `GET`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `GET /health`.
    Health,
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

/// The paths, in the order of [`TABLE`] and [`ROUTE_LABELS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Health,
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
    /// The `allow` header, in the original's form.
    allow: &'static str,
}

const fn row(path: Path, template: &'static str, allow: &'static str) -> Row {
    Row { path, template, allow }
}

const TABLE: [Row; 20] = [
    row(Path::Health, "/health", "GET,HEAD"),
    row(Path::Metrics, "/metrics", "GET,HEAD"),
    row(Path::Stats, "/stats", "GET,HEAD"),
    row(Path::WebSocket, "/ws", "GET,HEAD"),
    row(Path::Sse, "/sse", "GET,HEAD"),
    row(Path::Send, "/api/v1/notifications/send", "POST"),
    row(Path::SendToUsers, "/api/v1/notifications/send-to-users", "POST"),
    row(Path::Broadcast, "/api/v1/notifications/broadcast", "POST"),
    row(Path::Channel, "/api/v1/notifications/channel", "POST"),
    row(Path::Channels, "/api/v1/notifications/channels", "POST"),
    row(Path::Batch, "/api/v1/notifications/batch", "POST"),
    row(Path::ChannelList, "/api/v1/channels", "GET,HEAD"),
    row(Path::ChannelDetail, "/api/v1/channels/{name}", "GET,HEAD"),
    row(Path::UserSubscriptions, "/api/v1/users/{user_id}/subscriptions", "GET,HEAD"),
    row(Path::Templates, "/api/v1/templates", "POST,GET,HEAD"),
    row(Path::Template, "/api/v1/templates/{id}", "GET,HEAD,PUT,DELETE"),
    row(Path::TenantList, "/api/v1/tenants", "GET,HEAD"),
    row(Path::TenantDetail, "/api/v1/tenants/{tenant_id}", "GET,HEAD"),
    row(Path::ClusterStatus, "/api/v1/cluster/status", "GET,HEAD"),
    row(Path::ClusterUser, "/api/v1/cluster/users/{user_id}", "GET,HEAD"),
];

/// Metric labels: one per path as it stands in the documentation, and a last one, `other`, for every path that does
/// not exist, so that strangers cannot make labels.
pub const ROUTE_LABELS: [&str; TABLE.len() + 1] = {
    let mut labels = ["other"; TABLE.len() + 1];
    let mut at = 0;
    while at < TABLE.len() {
        // `Route::label_index` is the position of the path in its enum.
        assert!(TABLE[at].path as usize == at);
        labels[at] = TABLE[at].template;
        at += 1;
    }
    labels
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

impl Route {
    /// The position of the route's path in [`ROUTE_LABELS`]; the routes of one path share it.
    pub fn label_index(&self) -> usize {
        self.path() as usize
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
                | Route::TemplateCreate
                | Route::TemplatePut(_)
        )
    }

    fn path(&self) -> Path {
        match self {
            Route::Health => Path::Health,
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
