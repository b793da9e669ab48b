//! How a link stands, in the words of `/health` and `/stats`.

/// The state of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LinkState {
    /// Not up: the next attempt is due or under way.
    Reconnecting = 0,
    /// Up: connected, let in, and answered.
    Healthy = 1,
    /// Not up, and the breaker keeps the next attempt back.
    CircuitOpen = 2,
}

impl LinkState {
    /// The word of `/health` and `/stats` (contract §1.9).
    pub fn as_str(self) -> &'static str {
        match self {
            LinkState::Reconnecting => "reconnecting",
            LinkState::Healthy => "healthy",
            LinkState::CircuitOpen => "circuit_open",
        }
    }

    /// What was stored as a number in a status.
    pub(crate) fn from_number(number: u8) -> LinkState {
        match number {
            1 => LinkState::Healthy,
            2 => LinkState::CircuitOpen,
            _ => LinkState::Reconnecting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_the_contract_and_numbers_come_back() {
        let rows = [
            (LinkState::Healthy, "healthy"),
            (LinkState::Reconnecting, "reconnecting"),
            (LinkState::CircuitOpen, "circuit_open"),
        ];
        for (state, word) in rows {
            assert_eq!(state.as_str(), word);
            assert_eq!(LinkState::from_number(state as u8), state);
        }
    }
}
