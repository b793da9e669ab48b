//! Addresses that an operator writes: no panic, and whoever is told what is wrong is not told the password.
use storage::postgres::url::PostgresUrl;
use storage::redis::topology::url::RedisAddress;
use storage::redis::url::RedisUrl;

pub fn urls(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(url) = RedisUrl::parse(&text) {
        assert!(!url.host.is_empty() && url.port > 0);
    }
    let errors = [
        RedisUrl::parse(&text).err().map(|error| error.to_string()),
        RedisAddress::parse(&text).err().map(|error| error.to_string()),
        PostgresUrl::parse(&text).err().map(|error| error.to_string()),
    ];
    // Between the scheme and the last `@` there is nothing to quote.
    let secret =
        text.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@')).and_then(|(login, _)| login.split_once(':'));
    for error in errors.into_iter().flatten() {
        assert!(!error.is_empty() && !error.contains('\n'));
        // Long, and with a digit, so that it is not a word of ours.
        let tells = |password: &str| password.len() >= 8 && password.contains(|c: char| c.is_ascii_digit());
        if let Some((_, password)) = secret.filter(|(_, password)| tells(password)) {
            assert!(!error.contains(password), "{error}");
        }
    }
}
