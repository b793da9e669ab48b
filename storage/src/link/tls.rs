//! Whom a link trusts when it is encrypted, by rustls with ring; and anybody else who begins TLS with a server.
//!
//! The only place where a link's code asks for the time itself: rustls holds certificates against the wall clock.
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a file of certificates: the whole of Mozilla's list takes a quarter of it.
pub const ROOTS_BYTES_MAX: u64 = 1024 * 1024;

/// Why there can be no encrypted link; a matter of the settings, to be said at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// The file cannot be read, or is no list of certificates.
    Roots {
        /// Which file.
        file: PathBuf,
        /// Why.
        cause: String,
    },
    /// The machine's store of authorities is empty or cannot be read.
    NoSystemRoots,
    /// The host is no name that a certificate could have.
    Name,
    /// The ciphers of this build and TLS do not go together.
    Unsupported,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Roots { file, cause } => write!(f, "the certificates in {} are of no use: {cause}", file.display()),
            Self::NoSystemRoots => f.write_str(
                "this machine knows no certificate authorities (install ca-certificates, or name a file of them)",
            ),
            Self::Name => f.write_str("the host is no name that a certificate could have"),
            Self::Unsupported => f.write_str("no cipher of this build goes with TLS"),
        }
    }
}

impl std::error::Error for TlsError {}

/// Who may be on the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whoever it is: nobody reads along who does not sit in between.
    Anyone,
    /// For whom a trusted authority vouches, whatever its name.
    Authority,
    /// For whom a trusted authority vouches, by the name we know it by.
    AuthorityAndName,
}

/// What is needed to begin TLS with one server.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Whom it trusts.
    pub config: Arc<ClientConfig>,
    /// The server, as its certificate would name it.
    pub name: ServerName<'static>,
}

impl Tls {
    /// Reads the authorities, from `roots` or from the machine's store, where `trust` needs any.
    ///
    /// # Errors
    /// [`TlsError`]; the name is looked at last.
    pub fn new(host: &str, trust: Trust, roots: Option<&Path>) -> Result<Tls, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let roots = match (trust, roots) {
            (Trust::Anyone, _) => RootCertStore::empty(),
            (_, Some(file)) => roots_of(file)?,
            (_, None) => system_roots()?,
        };
        let verifier = Arc::new(Verifier { trust, roots, provider: Arc::clone(&provider) });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| TlsError::Unsupported)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name)?;
        Ok(Tls { config: Arc::new(config), name })
    }
}

impl Tls {
    /// The same trust for another host.
    pub(crate) fn at(&self, host: &str) -> Result<Tls, TlsError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name)?;
        Ok(Tls { config: Arc::clone(&self.config), name })
    }
}

fn roots_of(file: &Path) -> Result<RootCertStore, TlsError> {
    let failed = |cause: String| TlsError::Roots { file: file.to_owned(), cause };
    let bytes = std::fs::metadata(file).map_err(|error| failed(error.to_string()))?.len();
    if bytes > ROOTS_BYTES_MAX {
        return Err(failed(format!("{bytes} bytes; at most {ROOTS_BYTES_MAX} are read")));
    }
    let pem = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(failed("there is no certificate in PEM form".to_owned())),
        false => Ok(roots),
    }
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // A store may hold a few that are broken; what counts is that one is not.
    let (_added, _ignored) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err(TlsError::NoSystemRoots),
        false => Ok(roots),
    }
}

/// Looks at a certificate as closely as [`Trust`] says, and always at the signature that shows whose key it is.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.trust == Trust::Anyone {
            return Ok(ServerCertVerified::assertion());
        }
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        if self.trust == Trust::AuthorityAndName {
            verify_server_name(&certificate, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_trusted_is_said_at_the_start() {
        let none = Path::new("/no/such/file.pem");
        let error = Tls::new("h", Trust::AuthorityAndName, Some(none)).unwrap_err();
        assert!(error.to_string().contains("/no/such/file.pem"), "{error}");
        let error = Tls::new("h", Trust::Authority, Some(Path::new(file!()).file_name().unwrap().as_ref()));
        assert!(error.is_err());
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let error = Tls::new("h", Trust::Authority, Some(&manifest)).unwrap_err();
        assert!(error.to_string().contains("no certificate"), "{error}");
        assert_eq!(Tls::new("a b", Trust::Anyone, None).unwrap_err(), TlsError::Name);
        for host in ["h", "10.0.0.7", "::1", "db_1.example.com"] {
            assert!(Tls::new(host, Trust::Anyone, None).is_ok(), "{host}");
        }
    }
}
