//! HTTP/1.1 (RFC 9110, RFC 9112) as a server speaks it: heads and bodies in, responses out.
pub mod body;
pub mod client_address;
pub mod cors;
pub mod error;
pub mod head;
pub mod response;
pub mod route;
mod target;

pub use error::ApiError;
pub use head::is_json;

/// Which dialect a client speaks; 1.0 gets no chunks and closes unless it asks otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The seed's nginx to `/sse` and `/api`.
    Http10,
    /// Everybody else.
    Http11,
}

/// Methods that some route knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Reads.
    Get,
    /// Reads without the body.
    Head,
    /// Publishes, creates.
    Post,
    /// Changes.
    Put,
    /// Removes.
    Delete,
    /// CORS.
    Options,
    /// Anything else: 405 where the path exists.
    Other,
}
