//! Which web pages may call (contract §1.4). CORS asks browsers to keep pages of other origins out; it is no access
//! control of its own.

/// The origins that may call, and the headers that say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors(Allowed);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    Any,
    Nobody,
    Listed(Vec<String>),
}

/// The answer depends on these, so that shared caches keep apart what differs.
const VARY: &str = "vary: origin, access-control-request-method, access-control-request-headers\r\n";

impl Cors {
    /// Every origin: development without configured origins.
    pub fn any() -> Cors {
        Cors(Allowed::Any)
    }

    /// No origin, hence no header at all: production without configured origins (D-3).
    pub fn none() -> Cors {
        Cors(Allowed::Nobody)
    }

    /// These origins, compared as opaque text: scheme, host and port, no wildcards. Blanks around each are dropped,
    /// and so are empty ones.
    pub fn listed(origins: Vec<String>) -> Cors {
        let trimmed = origins.iter().map(|origin| origin.trim()).filter(|origin| !origin.is_empty());
        Cors(Allowed::Listed(trimmed.map(str::to_owned).collect()))
    }

    /// Appends the headers of every response to a request with this `Origin`.
    pub(super) fn write(&self, out: &mut Vec<u8>, origin: Option<&str>) {
        match &self.0 {
            Allowed::Nobody => return,
            Allowed::Any => out.extend_from_slice(b"access-control-allow-origin: *\r\n"),
            Allowed::Listed(origins) => {
                if let Some(listed) = origins.iter().find(|listed| Some(listed.as_str()) == origin) {
                    out.extend_from_slice(b"access-control-allow-origin: ");
                    out.extend_from_slice(listed.as_bytes());
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
        out.extend_from_slice(VARY.as_bytes());
    }

    /// Appends what an answer to `OPTIONS` has besides.
    pub(super) fn write_preflight(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(match self.0 {
            Allowed::Nobody => b"".as_slice(),
            Allowed::Any => b"access-control-allow-methods: *\r\naccess-control-allow-headers: *\r\n",
            // The original forgot PUT, DELETE and the tenant (W-51).
            Allowed::Listed(_) => {
                b"access-control-allow-methods: GET,POST,PUT,DELETE,OPTIONS\r\n\
                  access-control-allow-headers: content-type,authorization,x-api-key,x-tenant-id\r\n"
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(cors: &Cors, origin: Option<&str>) -> String {
        let mut out = Vec::new();
        cors.write(&mut out, origin);
        String::from_utf8(out).unwrap()
    }

    fn preflight(cors: &Cors) -> String {
        let mut out = Vec::new();
        cors.write_preflight(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn any_origin_is_a_star_with_and_without_an_origin() {
        let answer = format!("access-control-allow-origin: *\r\n{VARY}");
        assert_eq!(written(&Cors::any(), None), answer);
        assert_eq!(written(&Cors::any(), Some("https://a.example")), answer);
    }

    #[test]
    fn no_origin_means_no_header() {
        assert_eq!(written(&Cors::none(), Some("https://a.example")), "");
        assert_eq!(preflight(&Cors::none()), "");
    }

    #[test]
    fn a_listed_origin_is_echoed_and_no_other() {
        let cors = Cors::listed(vec![" https://a.example ".into(), String::new(), "http://b.example:8080".into()]);
        let echoed = |origin: &str| format!("access-control-allow-origin: {origin}\r\n{VARY}");
        assert_eq!(written(&cors, Some("https://a.example")), echoed("https://a.example"));
        assert_eq!(written(&cors, Some("http://b.example:8080")), echoed("http://b.example:8080"));
        for other in
            ["http://a.example", "https://a.example:443", "https://A.example", "https://a.example.evil", "", "null"]
        {
            assert_eq!(written(&cors, Some(other)), VARY, "{other}");
        }
        assert_eq!(written(&cors, None), VARY);
    }
}
