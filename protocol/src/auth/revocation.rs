//! Tokens that hold no longer though they have not expired: what is said to revoke them, and what is kept of it.
//!
//! | form | where |
//! |---|---|
//! | the body of `POST /api/v1/tokens/revoke` | [`Revocation::parse`] |
//! | the answer to it | [`write_revoked`] |
//! | what Redis keeps, under the time it is kept until | [`Revocation::write_member`], [`Revocation::parse_member`] |
//! | what nodes tell each other | [`crate::cluster::wire`] |
use crate::clock::Now;
use crate::ids::{self, TenantId};
use crate::json::{self, Json};
use crate::limits;
use crate::publish::body::{self, BodyError, Fault};

/// Tokens of a tenant that are refused, and whose connections end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Whose tokens.
    pub tenant: TenantId,
    /// Which.
    pub revoked: Revoked,
    /// It is forgotten then, in seconds since the Unix epoch: all of them must have expired.
    pub until_unix_s: u64,
}

/// Which tokens are revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// The one with this `jti`.
    Token {
        /// At most [`limits::TOKEN_ID_BYTES_MAX`] bytes.
        id: Box<str>,
    },
    /// Those of a user that were issued before this time, and those that do not say when.
    User {
        /// The user.
        user: Box<str>,
        /// In seconds since the Unix epoch.
        before_unix_s: u64,
    },
}

/// `expires_at` ends there even if a caller asks for more.
const UNTIL_MAX: u64 = u64::MAX / 2;

impl Revocation {
    /// Reads a body: `jti` or `user_id`, exactly one of them, and what may be absent: `before` (with `user_id`; absent: all
    /// that were issued until now, this second included) and `expires_at` (when the last of the tokens expires; absent, or
    /// later than that: [`limits::REVOCATION_SECONDS_MAX`] from now).
    ///
    /// # Errors
    /// [`BodyError`]; the caller's doing.
    pub fn parse(body: &[u8], tenant: TenantId, now: Now) -> Result<Revocation, BodyError> {
        let [id, user, before, expires_at] =
            Json::parse(body)?.fields(&["jti", "user_id", "before", "expires_at"]).map_err(Fault::from)?;
        let (id, user) = (body::optional_text(id, "jti")?, body::optional_text(user, "user_id")?);
        let (before, expires_at) = (seconds(before, "before")?, seconds(expires_at, "expires_at")?);
        let now_unix_s = now.unix_seconds();
        let revoked = match (id, user, before) {
            (Some(id), None, None) => {
                if id.len() > limits::TOKEN_ID_BYTES_MAX {
                    let message = format!("jti exceeds maximum of {} bytes", limits::TOKEN_ID_BYTES_MAX);
                    return Err(Fault::Invalid(message).into());
                }
                Revoked::Token { id }
            }
            (None, Some(user), before) => {
                body::check_user_id(&user, "user_id")?;
                // A token that does not say when it was issued counts as issued at 0, and is hit by any.
                let before_unix_s = before.unwrap_or(now_unix_s + 1).max(1);
                if before_unix_s > now_unix_s + limits::TOKEN_LEEWAY_SECONDS {
                    let message = "before lies in the future; it is in seconds since 1970";
                    return Err(Fault::Invalid(message.to_owned()).into());
                }
                Revoked::User { user, before_unix_s }
            }
            (Some(_), None, Some(_)) => return Err(Fault::Invalid("before goes with user_id only".to_owned()).into()),
            _ => return Err(Fault::Shape("exactly one of `jti` and `user_id` must be there".to_owned()).into()),
        };
        let longest = now_unix_s + limits::REVOCATION_SECONDS_MAX;
        let until_unix_s = expires_at.map_or(longest, |at| {
            at.min(UNTIL_MAX).saturating_add(limits::TOKEN_LEEWAY_SECONDS).saturating_add(1).min(longest)
        });
        Ok(Revocation { tenant, revoked, until_unix_s })
    }

    /// Whether a token is one of them. `issued_at_unix_s` is 0 when it does not say.
    pub fn hits(&self, user: &str, id: Option<&str>, issued_at_unix_s: u64) -> bool {
        match &self.revoked {
            Revoked::Token { id: revoked } => id == Some(revoked),
            Revoked::User { user: revoked, before_unix_s } => user == &**revoked && issued_at_unix_s < *before_unix_s,
        }
    }

    /// Whether both speak of the same token, or of the same user.
    pub fn is_about_the_same(&self, other: &Revocation) -> bool {
        self.tenant == other.tenant
            && match (&self.revoked, &other.revoked) {
                (Revoked::Token { id }, Revoked::Token { id: other }) => id == other,
                (Revoked::User { user, .. }, Revoked::User { user: other, .. }) => user == other,
                _ => false,
            }
    }

    /// The two of the same token or user as one.
    #[must_use]
    pub fn merged(&self, other: &Revocation) -> Revocation {
        let mut merged = self.clone();
        merged.until_unix_s = self.until_unix_s.max(other.until_unix_s);
        if let (Revoked::User { before_unix_s, .. }, Revoked::User { before_unix_s: other, .. }) =
            (&mut merged.revoked, &other.revoked)
        {
            *before_unix_s = (*before_unix_s).max(*other);
        }
        merged
    }

    /// Appends what Redis keeps: JSON, the same bytes whoever writes it, without the time it is kept until.
    pub fn write_member(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"tenant_id":"#);
        json::write_string(out, self.tenant.as_str());
        match &self.revoked {
            Revoked::Token { id } => {
                out.extend_from_slice(br#","jti":"#);
                json::write_string(out, id);
            }
            Revoked::User { user, before_unix_s } => {
                out.extend_from_slice(br#","user_id":"#);
                json::write_string(out, user);
                out.extend_from_slice(br#","before":"#);
                out.extend_from_slice(itoa::Buffer::new().format(*before_unix_s).as_bytes());
            }
        }
        out.push(b'}');
    }

    /// Reads it again. `None`: nobody of us wrote that.
    pub fn parse_member(member: &[u8], until_unix_s: u64) -> Option<Revocation> {
        let [tenant, id, user, before] =
            Json::parse(member).ok()?.fields(&["tenant_id", "jti", "user_id", "before"]).ok()?;
        let tenant = tenant?.string()?;
        let revoked = match (id, user) {
            (Some(id), None) => Revoked::Token { id: id.string()?.into() },
            (None, Some(user)) => Revoked::User { user: user.string()?.into(), before_unix_s: before?.decode()? },
            _ => return None,
        };
        Revocation { tenant: TenantId::parse(&tenant)?, revoked, until_unix_s }.checked()
    }

    /// Itself, if its names are within their bounds.
    pub(crate) fn checked(self) -> Option<Revocation> {
        let fits = match &self.revoked {
            Revoked::Token { id } => id.len() <= limits::TOKEN_ID_BYTES_MAX,
            Revoked::User { user, .. } => ids::is_user_id(user),
        };
        fits.then_some(self)
    }
}

/// A number of seconds; absent and `null` are none.
fn seconds(value: Option<Json<'_>>, field: &str) -> Result<Option<u64>, Fault> {
    match value {
        Some(value) if !value.is_null() => {
            value.decode().map(Some).ok_or_else(|| Fault::not(field, "a whole number of seconds since 1970"))
        }
        _ => Ok(None),
    }
}

/// How many connections a call has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disconnected {
    /// In the whole cluster.
    pub all: u64,
    /// On the node that was asked; in cluster mode only.
    pub local: Option<u64>,
    /// Nodes that were told, by Redis' count, and have not answered in time: they stand still, or are dead.
    pub unconfirmed: u64,
}

/// Appends the answer to a revocation, with the time until which it is held.
pub fn write_revoked(out: &mut Vec<u8>, until_unix_s: u64, disconnected: Disconnected) {
    out.extend_from_slice(br#"{"revoked":true,"expires_at":"#);
    out.extend_from_slice(itoa::Buffer::new().format(until_unix_s).as_bytes());
    write_counts(out, disconnected);
}

/// Appends the answer to `POST /api/v1/users/{user_id}/disconnect`.
pub fn write_disconnected(out: &mut Vec<u8>, user: &str, disconnected: Disconnected) {
    out.extend_from_slice(br#"{"user_id":"#);
    json::write_string(out, user);
    write_counts(out, disconnected);
}

fn write_counts(out: &mut Vec<u8>, disconnected: Disconnected) {
    let mut number = |name: &[u8], number: u64| {
        out.extend_from_slice(name);
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    };
    number(br#","disconnected":"#, disconnected.all);
    if let Some(local) = disconnected.local {
        number(br#","disconnected_local":"#, local);
    }
    if disconnected.unconfirmed > 0 {
        number(br#","unconfirmed":"#, disconnected.unconfirmed);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_767_323_045;
    const LONGEST: u64 = NOW + limits::REVOCATION_SECONDS_MAX;

    fn parse(body: &str) -> Result<Revocation, (u16, String)> {
        let now = Now { mono_us: 0, unix_ns: NOW * 1_000_000_000 };
        Revocation::parse(body.as_bytes(), TenantId::default_tenant(), now)
            .map_err(|error| (error.status(), error.message().to_owned()))
    }

    fn token(id: &str, until_unix_s: u64) -> Revocation {
        Revocation { tenant: TenantId::default_tenant(), revoked: Revoked::Token { id: id.into() }, until_unix_s }
    }

    fn user(user: &str, before_unix_s: u64, until_unix_s: u64) -> Revocation {
        let revoked = Revoked::User { user: user.into(), before_unix_s };
        Revocation { tenant: TenantId::default_tenant(), revoked, until_unix_s }
    }

    #[test]
    fn bodies_are_understood() {
        let far = format!(r#"{{"jti":"a","expires_at":{}}}"#, u64::MAX);
        let rows = [
            (r#"{"jti":"a"}"#, token("a", LONGEST)),
            (r#"{"jti":"","user_id":null,"x":1}"#, token("", LONGEST)),
            (r#"{"jti":"a","expires_at":1767323100}"#, token("a", 1_767_323_161)),
            (r#"{"jti":"a","expires_at":0}"#, token("a", 61)),
            (&far, token("a", LONGEST)),
            (r#"{"user_id":"ana"}"#, user("ana", NOW + 1, LONGEST)),
            (r#"{"user_id":"","before":7,"expires_at":1767323100}"#, user("", 7, 1_767_323_161)),
            (r#"{"user_id":"ana","before":0}"#, user("ana", 1, LONGEST)),
            (r#"{"user_id":"ana","before":1767323105}"#, user("ana", NOW + 60, LONGEST)),
        ];
        for (body, expected) in rows {
            assert_eq!(parse(body), Ok(expected), "{body}");
        }
    }

    #[test]
    fn what_is_no_revocation_is_refused_with_words() {
        let long = format!(r#"{{"jti":"{}"}}"#, "x".repeat(257));
        let long_user = format!(r#"{{"user_id":"{}"}}"#, "x".repeat(256));
        let rows = [
            ("", 400, "JSON"),
            ("[]", 422, "object"),
            ("{}", 422, "exactly one of"),
            (r#"{"jti":"a","user_id":"b"}"#, 422, "exactly one of"),
            (r#"{"jti":1}"#, 422, "`jti` must be a string"),
            (r#"{"jti":"a","jti":"b"}"#, 422, "duplicate field"),
            (r#"{"jti":"a","before":7}"#, 400, "before goes with user_id"),
            (r#"{"jti":"a","expires_at":1.5}"#, 422, "`expires_at` must be a whole number"),
            (r#"{"jti":"a","expires_at":-1}"#, 422, "`expires_at` must be a whole number"),
            (r#"{"user_id":"a","before":"7"}"#, 422, "`before` must be a whole number"),
            (r#"{"user_id":"a","before":1767323106}"#, 400, "in seconds since 1970"),
            (r#"{"user_id":"a","before":1767323045000}"#, 400, "in seconds since 1970"),
            (&long, 400, "exceeds maximum of 256"),
            (&long_user, 400, "user_id"),
        ];
        for (body, status, words) in rows {
            let (given, message) = parse(body).unwrap_err();
            assert!(given == status && message.contains(words), "{body}: {given} {message}");
        }
    }

    #[test]
    fn what_is_kept_has_its_bytes_and_comes_back() {
        let acme = Revocation { tenant: TenantId::parse("acme").unwrap(), ..token("a\"b", 9) };
        let rows = [
            (token("a", 9), r#"{"tenant_id":"default","jti":"a"}"#),
            (acme, r#"{"tenant_id":"acme","jti":"a\"b"}"#),
            (user("訂:ana", 7, 9), r#"{"tenant_id":"default","user_id":"訂:ana","before":7}"#),
        ];
        for (revocation, golden) in rows {
            let mut member = Vec::new();
            revocation.write_member(&mut member);
            assert_eq!(String::from_utf8(member.clone()).unwrap(), golden);
            assert_eq!(Revocation::parse_member(&member, 9), Some(revocation));
        }
        let long = format!(r#"{{"tenant_id":"a","jti":"{}"}}"#, "x".repeat(257));
        for member in [
            "",
            "{}",
            r#"{"tenant_id":"a"}"#,
            r#"{"tenant_id":"a:b","jti":"a"}"#,
            r#"{"tenant_id":"a","jti":"a","user_id":"b","before":1}"#,
            r#"{"tenant_id":"a","user_id":"b"}"#,
            r#"{"tenant_id":"a","user_id":"b","before":-1}"#,
            &long,
        ] {
            assert_eq!(Revocation::parse_member(member.as_bytes(), 9), None, "{member}");
        }
    }

    #[test]
    fn who_is_hit() {
        let all = user("ana", 100, 9);
        assert!(all.hits("ana", None, 0) && all.hits("ana", Some("x"), 99));
        assert!(!all.hits("ana", None, 100) && !all.hits("bo", None, 0));
        let one = token("x", 9);
        assert!(one.hits("ana", Some("x"), 0) && !one.hits("ana", Some("y"), 0) && !one.hits("ana", None, 0));
        assert_eq!(all.merged(&user("ana", 50, 20)), user("ana", 100, 20));
        assert_eq!(all.merged(&user("ana", 150, 1)), user("ana", 150, 9));
        assert!(all.is_about_the_same(&user("ana", 1, 1)) && !all.is_about_the_same(&token("ana", 9)));
    }

    #[test]
    fn answers_have_their_bytes() {
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).unwrap()
        };
        let alone = |all| Disconnected { all, ..Disconnected::default() };
        let together = Disconnected { all: 2, local: Some(1), unconfirmed: 0 };
        assert_eq!(
            written(&|out| write_revoked(out, 7, together)),
            r#"{"revoked":true,"expires_at":7,"disconnected":2,"disconnected_local":1}"#
        );
        assert_eq!(
            written(&|out| write_revoked(out, 7, Disconnected { unconfirmed: 1, ..together })),
            r#"{"revoked":true,"expires_at":7,"disconnected":2,"disconnected_local":1,"unconfirmed":1}"#
        );
        assert_eq!(
            written(&|out| write_revoked(out, 7, alone(0))),
            r#"{"revoked":true,"expires_at":7,"disconnected":0}"#
        );
        assert_eq!(
            written(&|out| write_disconnected(out, "a\"", together)),
            r#"{"user_id":"a\"","disconnected":2,"disconnected_local":1}"#
        );
        assert_eq!(written(&|out| write_disconnected(out, "ana", alone(3))), r#"{"user_id":"ana","disconnected":3}"#);
    }
}
