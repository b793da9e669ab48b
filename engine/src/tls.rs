//! TLS for clients: from two PEM files to what connections are encrypted with (decision 12).
use crate::config::settings::TlsSettings;
use protocol::limits::TLS_FILE_BYTES_MAX;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore, ServerConfig};
use shards::reactor::TlsSource;
use std::path::Path;
use std::sync::Arc;
use std::{fmt, io};

/// Why clients cannot be served with these files; the operator's to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFault {
    /// Which setting names the file.
    pub setting: &'static str,
    /// The file.
    pub file: String,
    /// What it must be, or why it is of no use.
    pub cause: String,
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?}: {}", self.setting, self.file, self.cause)
    }
}

impl std::error::Error for TlsFault {}

const CERT: &str = "TLS_CERT";
const KEY: &str = "TLS_KEY";

/// What connects get from now on. Tickets are of this configuration: who comes back with one of an earlier makes a whole
/// handshake, and sees the certificate that holds now.
///
/// # Errors
/// A file cannot be read, is too long, holds no PEM of its kind, the certificate is not valid now, or the key is another's.
pub fn server_config(settings: &TlsSettings, now: UnixTime) -> Result<ServerConfig, TlsFault> {
    server_config_from(&settings.certificate, &settings.key, now, &|path| {
        let bytes = std::fs::metadata(path)?.len();
        match bytes > TLS_FILE_BYTES_MAX {
            true => Err(io::Error::other(format!("{bytes} bytes; at most {TLS_FILE_BYTES_MAX} are read"))),
            false => std::fs::read(path),
        }
    })
}

/// [`server_config`], with a way to read files.
///
/// # Errors
/// As there.
pub fn server_config_from(
    certificate: &Path,
    key: &Path,
    now: UnixTime,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<ServerConfig, TlsFault> {
    let of = |setting, path: &Path| {
        let file = path.display().to_string();
        move |cause: String| TlsFault { setting, file, cause }
    };
    let (of_cert, of_key) = (of(CERT, certificate), of(KEY, key));
    let pem = read(certificate).map_err(|error| of_cert.clone()(format!("cannot be read: {error}")))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| of_cert.clone()(format!("must be certificates in PEM form: {error}")))?;
    let Some(first) = chain.first() else {
        return Err(of_cert("must hold a certificate in PEM form, the server's own first".to_owned()));
    };
    let provider = Arc::new(ring::default_provider());
    check_validity(first, now, &provider).map_err(of_cert.clone())?;
    let pem = read(key).map_err(|error| of_key.clone()(format!("cannot be read: {error}")))?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| of_key.clone()("must hold a private key in PEM form, not protected by a passphrase".to_owned()))?;
    let unusable = |error: Error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            of_key.clone()(format!("must be the key of the first certificate in {CERT}"))
        }
        Error::InvalidCertificate(error) => of_cert.clone()(format!("is of no use: {error:?}")),
        error => of_key.clone()(format!("is of no use: {error}")),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Whoever comes back brings what is needed: nothing is kept here, and no shard waits for another.
    config.ticketer = ring::Ticketer::new().map_err(unusable)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    // No early data: it could be sent twice by somebody in between.
    config.max_early_data_size = 0;
    Ok(config)
}

/// Whether the certificate holds now. Nothing else is asked: who vouches for it is the clients' business.
fn check_validity(certificate: &CertificateDer<'_>, now: UnixTime, provider: &CryptoProvider) -> Result<(), String> {
    let parsed = ParsedCertificate::try_from(certificate).map_err(|error| format!("is of no use: {error}"))?;
    let algorithms = provider.signature_verification_algorithms.all;
    match verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], now, algorithms) {
        Err(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            Err("has expired".to_owned())
        }
        Err(Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. })) => {
            Err("is not valid yet; is the clock of this machine right?".to_owned())
        }
        // That no authority is known here is no fault of the certificate.
        _ => Ok(()),
    }
}

/// Reads the files again: what is good holds for everybody who comes from now on, what is bad changes nothing.
pub(crate) fn reload(settings: &TlsSettings, source: &TlsSource) {
    match server_config(settings, UnixTime::now()) {
        Ok(config) => {
            source.replace(Arc::new(config));
            tracing::info!(certificate = %settings.certificate.display(), "the certificate was read again");
        }
        Err(fault) => tracing::error!(%fault, "the certificate was not read again, the one before goes on"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::process::Command;
    use std::time::Duration;

    /// A folder with a certificate and key of each of these names, which goes away with this value.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let folder = std::env::temp_dir().join(format!("ara-tls-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            for kind in ["ec -pkeyopt ec_paramgen_curve:prime256v1", "rsa:2048"] {
                let name = &kind[..2];
                let arguments = format!(
                    "req -x509 -newkey {kind} -nodes -keyout {name}.key -out {name}.pem -days 30 -subj /CN=localhost"
                );
                let made = Command::new("openssl").args(arguments.split(' ')).current_dir(&folder).output();
                let made = made.expect("these tests need openssl; deploy/install-test-deps.sh");
                assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            }
            Folder(folder)
        }

        fn write(&self, name: &str, bytes: &[u8]) {
            std::fs::write(self.0.join(name), bytes).unwrap();
        }

        fn load(&self, certificate: &str, key: &str, now: UnixTime) -> Result<ServerConfig, TlsFault> {
            let settings = TlsSettings { certificate: self.0.join(certificate), key: self.0.join(key) };
            server_config(&settings, now)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn what_is_wrong_with_the_files_is_said_with_the_setting_that_names_them() {
        let folder = Folder::new("faults");
        let now = UnixTime::now();
        for name in ["ec", "rs"] {
            let config = folder.load(&format!("{name}.pem"), &format!("{name}.key"), now).unwrap();
            assert_eq!(config.alpn_protocols, [b"http/1.1"]);
            assert!(config.ticketer.enabled() && config.max_early_data_size == 0);
        }
        folder.write("empty.pem", b"");
        folder.write("cut.pem", b"-----BEGIN CERTIFICATE-----\nMIIB\n");
        folder.write("noise.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        folder
            .write("locked.key", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
        folder.write("long.pem", &vec![b'x'; TLS_FILE_BYTES_MAX as usize + 1]);
        let rows = [
            ("none.pem", "ec.key", CERT, "cannot be read: No such file"),
            ("long.pem", "ec.key", CERT, "cannot be read: 1048577 bytes"),
            ("empty.pem", "ec.key", CERT, "must hold a certificate"),
            ("ec.key", "ec.key", CERT, "must hold a certificate"),
            ("cut.pem", "ec.key", CERT, "must be certificates in PEM form"),
            ("noise.pem", "ec.key", CERT, "is of no use"),
            ("ec.pem", "none.key", KEY, "cannot be read: No such file"),
            ("ec.pem", "ec.pem", KEY, "must hold a private key"),
            ("ec.pem", "locked.key", KEY, "not protected by a passphrase"),
            ("ec.pem", "rs.key", KEY, "must be the key of the first certificate in TLS_CERT"),
        ];
        for (certificate, key, setting, cause) in rows {
            let fault = folder.load(certificate, key, now).unwrap_err();
            assert!(fault.setting == setting && fault.cause.contains(cause), "{certificate}, {key}: {fault}");
        }
        let days = |days: u64| UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + days * 86_400));
        let fault = folder.load("ec.pem", "ec.key", days(31)).unwrap_err();
        assert_eq!((fault.setting, &*fault.cause), (CERT, "has expired"));
        let yesterday = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() - 86_400));
        let fault = folder.load("ec.pem", "ec.key", yesterday).unwrap_err();
        assert!(fault.setting == CERT && fault.cause.starts_with("is not valid yet"), "{fault}");
    }
}
