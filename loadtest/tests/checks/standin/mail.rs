//! What the stand-in keeps for users who are away.
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Mutex;

/// Every user's mail, oldest first.
#[derive(Default)]
pub(super) struct Mail(Mutex<HashMap<String, Vec<String>>>);

impl Mail {
    pub(super) fn keep(&self, user: &str, text: &str) {
        self.0.lock().unwrap().entry(user.to_owned()).or_default().push(text.to_owned());
    }

    /// What is kept for a user; without acknowledgements it is removed.
    pub(super) fn of(&self, user: &str, is_removed: bool) -> Vec<String> {
        let mut kept = self.0.lock().unwrap();
        let mail = kept.get(user).cloned().unwrap_or_default();
        if is_removed {
            kept.remove(user);
        }
        mail
    }

    /// Removes what a user acknowledged.
    pub(super) fn acknowledge(&self, user: &str, id: &str) {
        let mut kept = self.0.lock().unwrap();
        kept.entry(user.to_owned()).or_default().retain(|text| !text.contains(id));
    }

    /// The answer to `GET /health`, as far as it concerns mail.
    pub(super) fn health(&self) -> Value {
        let kept: usize = self.0.lock().unwrap().values().map(Vec::len).sum();
        json!({"status": "healthy", "queue": {"enabled": true, "backend": "memory", "total_messages": kept}})
    }
}
