//! Templates (being written).

/// A kept template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// Bare id, unique in its tenant.
    pub id: Box<str>,
}
