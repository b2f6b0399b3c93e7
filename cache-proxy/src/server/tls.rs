//! The same over TLS, with certificates that are read again while it runs.
//!
//! `refresh_certs`, as memcached spells it, and [`Certificates::refresh`] read
//! the files again; the next handshake uses what they hold then. Files that are
//! wrong leave what was. The cryptography is graviola's, which is Rust alone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Door, Shutdown};
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::Cache;
use crate::connections::Peer;
use crate::error::{Error, Result};

/// How long a client may take to shake hands.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A certificate chain and its key, in PEM files.
#[derive(Debug)]
pub struct Certificates {
    chain: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// [`Error::Certificates`]: a file cannot be read, or they do not belong together.
    pub fn read(chain: PathBuf, key: PathBuf) -> Result<Self> {
        let current = RwLock::new(read(&chain, &key)?);
        Ok(Self { chain, key, current })
    }

    /// Reads the files again, for the connections to come.
    ///
    /// # Errors
    ///
    /// [`Error::Certificates`]: what was stays.
    pub fn refresh(&self) -> Result<()> {
        let read = read(&self.chain, &self.key)?;
        *self.current.write() = read;
        Ok(())
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.read()))
    }
}

fn read(chain: &PathBuf, key: &PathBuf) -> Result<Arc<ServerConfig>> {
    let wrong = |path: &PathBuf, reason: String| Error::Certificates { path: path.clone(), reason };
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|error| wrong(chain, error.to_string()))?;
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, error.to_string()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls_graviola::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(chain, error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certificates, private_key)
        .map_err(|error| wrong(chain, error.to_string()))?;
    Ok(Arc::new(config))
}

impl Cache {
    /// Serves `door` with TLS until `shutdown` begins; of one cache, one door at
    /// a time has the certificates that `refresh_certs` reads.
    pub async fn serve_tls(&self, door: Door, certificates: Arc<Certificates>, shutdown: Shutdown) {
        self.keep(&shutdown);
        *self.shared.certificates.lock() = Some(Arc::clone(&certificates));
        let local = door.local_address();
        let _listener = self.shared.connections.listen(Peer::Tcp { peer: local, local });
        let connection_shutdown = shutdown.clone();
        let serve = |stream, peer| {
            let (cache, acceptor) = (self.clone(), certificates.acceptor());
            let shutdown = connection_shutdown.clone();
            async move {
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        cache.serve_stream(stream, Peer::Tcp { peer, local }, shutdown).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS with this client"),
                    Err(_) => tracing::debug!(%peer, "the client took too long to shake hands"),
                }
            }
        };
        door.serve(shutdown, serve).await;
    }
}
