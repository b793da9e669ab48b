//! `healthcheck`: is the service on this machine healthy?
use super::client::{self, Address, Question};
use super::{Failure, print};
use crate::args::HealthcheckArgs;
use crate::config::Sources;
use std::time::Duration;

/// A container's health check is commonly given 3 s.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks `/health` once and prints the answer.
///
/// # Errors
/// It did not answer 200 in time. A degraded service answers 200: it still does its work, and a restart would not help.
pub fn run(sources: &Sources, args: &HealthcheckArgs) -> Result<(), Failure> {
    let address = match &args.url {
        Some(url) => Address::parse(url)?,
        None => Address::of_own_service(sources),
    };
    let path = if address.path.is_empty() { "/health" } else { &address.path };
    let answer = client::ask(&address, Question { method: "GET", path, headers: "", body: b"", patience: PATIENCE })?;
    if answer.status != 200 {
        return Err(Failure(format!("{} answered {}", address.authority, answer.status)));
    }
    print(answer.body.trim_end());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::client::tests::service;
    use super::*;

    fn check(answer: &'static str) -> (Result<(), Failure>, String) {
        let (address, asked) = service(answer);
        let args = HealthcheckArgs { url: Some(format!("http://{}", address.authority)) };
        (run(&Sources::from_environment([]), &args), asked.join().unwrap())
    }

    #[test]
    fn only_200_is_healthy() {
        let (result, asked) = check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        assert_eq!(result, Ok(()));
        assert!(asked.starts_with("GET /health HTTP/1.1\r\n"), "{asked}");
        let (result, _) = check("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
        assert!(result.unwrap_err().0.ends_with("answered 503"));
    }

    #[test]
    fn nobody_there_is_not_healthy() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/health", listener.local_addr().unwrap());
        drop(listener);
        assert!(run(&Sources::from_environment([]), &HealthcheckArgs { url: Some(url) }).is_err());
    }
}
