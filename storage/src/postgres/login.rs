//! Proving who we are: what a server may ask for at the start of a session, and what we say to it.
use crate::postgres::url::PostgresUrl;
use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use std::fmt;

/// Why we cannot come in; the settings or the server have to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginError {
    /// The server asks for a password and `DATABASE_URL` has none.
    NoPassword,
    /// The server asks for a proof that this client cannot give.
    Unsupported(&'static str),
    /// The server's part of SCRAM is broken, or it asks for more than 100,000 iterations.
    Scram,
    /// The server lets us in without proving that it knows the password: it is not who it seems to be.
    Unproven,
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPassword => f.write_str("the server asks for a password and DATABASE_URL has none"),
            Self::Unsupported(what) => {
                write!(f, "the server asks for {what}; scram-sha-256, md5, password and trust are spoken here")
            }
            Self::Scram => f.write_str("the server's part of SCRAM-SHA-256 is broken"),
            Self::Unproven => f.write_str("the server let us in without proving that it knows the password"),
        }
    }
}

/// Our part of the proof.
pub(super) struct Login {
    user: String,
    password: Option<Vec<u8>>,
    scram: Scram,
}

enum Scram {
    /// The server did not ask for it.
    Unasked,
    /// Under way: it is not proven yet that the server knows the password.
    Begun(Box<ScramSha256>),
    /// Both sides know the password.
    Proven,
}

impl Login {
    pub(super) fn new(url: &PostgresUrl) -> Login {
        Login { user: url.user.clone(), password: url.password.clone(), scram: Scram::Unasked }
    }

    /// Answers a request for proof; `None` if the message is none.
    pub(super) fn answer(&mut self, message: &Message, output: &mut BytesMut) -> Option<Result<(), LoginError>> {
        let unsupported = |what| Some(Err(LoginError::Unsupported(what)));
        match message {
            Message::AuthenticationOk => Some(match self.scram {
                Scram::Begun(_) => Err(LoginError::Unproven),
                Scram::Unasked | Scram::Proven => Ok(()),
            }),
            Message::AuthenticationCleartextPassword => Some(self.with_password(|_, password| {
                let _ = frontend::password_message(password, output);
            })),
            Message::AuthenticationMd5Password(body) => Some(self.with_password(|user, password| {
                let hash = md5_hash(user, password, body.salt());
                // Fails on a zero byte only: a hash has none, and the URL's parser lets none into a password.
                let _ = frontend::password_message(hash.as_bytes(), output);
            })),
            Message::AuthenticationSasl(body) => {
                let mut mechanisms = body.mechanisms();
                match mechanisms.any(|mechanism| Ok(mechanism == SCRAM_SHA_256)) {
                    Ok(true) => Some(self.begin_scram(output)),
                    Ok(false) => unsupported("an unknown SASL mechanism"),
                    Err(_) => Some(Err(LoginError::Scram)),
                }
            }
            Message::AuthenticationSaslContinue(body) => Some(match &mut self.scram {
                Scram::Begun(scram) => scram.update(body.data()).map_err(|_| LoginError::Scram).map(|()| {
                    // Fails on more than 2 GiB only; it is about a hundred bytes.
                    let _ = frontend::sasl_response(scram.message(), output);
                }),
                Scram::Unasked | Scram::Proven => Err(LoginError::Scram),
            }),
            Message::AuthenticationSaslFinal(body) => Some(match &mut self.scram {
                Scram::Begun(scram) => match scram.finish(body.data()) {
                    Ok(()) => {
                        self.scram = Scram::Proven;
                        Ok(())
                    }
                    Err(_) => Err(LoginError::Unproven),
                },
                Scram::Unasked | Scram::Proven => Err(LoginError::Scram),
            }),
            Message::AuthenticationKerberosV5 => unsupported("Kerberos"),
            Message::AuthenticationScmCredential => unsupported("credentials of a local socket"),
            Message::AuthenticationGss | Message::AuthenticationGssContinue(_) => unsupported("GSSAPI"),
            Message::AuthenticationSspi => unsupported("SSPI"),
            _ => None,
        }
    }

    fn begin_scram(&mut self, output: &mut BytesMut) -> Result<(), LoginError> {
        let password = self.password.as_deref().ok_or(LoginError::NoPassword)?;
        let scram = ScramSha256::new(password, ChannelBinding::unsupported());
        // Fails on a zero byte in the mechanism's name only.
        let _ = frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), output);
        self.scram = Scram::Begun(Box::new(scram));
        Ok(())
    }

    fn with_password(&self, say: impl FnOnce(&[u8], &[u8])) -> Result<(), LoginError> {
        let password = self.password.as_deref().ok_or(LoginError::NoPassword)?;
        say(self.user.as_bytes(), password);
        Ok(())
    }
}
