//! The same over a Unix socket: for clients on this machine, by file permissions.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cluster::Shutdown;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use super::Cache;
use crate::connections::Peer;
use crate::error::{Error, Result};
use crate::options::REFUSAL;

impl Cache {
    /// Binds a socket at `path` that those may use whom `mode` allows. A socket
    /// that another process left there is replaced, nothing else is.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`]: nothing listens.
    pub fn open_unix(path: &Path, mode: u32) -> Result<UnixListener> {
        let wrong = |source| Error::Socket { path: path.to_owned(), source };
        if std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket()) {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(wrong(io::ErrorKind::AddrInUse.into()));
            }
            std::fs::remove_file(path).map_err(wrong)?;
        }
        let listener = UnixListener::bind(path).map_err(wrong)?;
        std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(wrong)?;
        Ok(listener)
    }

    /// Serves `listener`, which is bound at `path`, until `shutdown` begins, and
    /// removes the socket then. [`Cache::keep`] is the caller's.
    pub async fn serve_unix(&self, listener: UnixListener, path: PathBuf, shutdown: Shutdown) {
        let path = Arc::new(path);
        let _listener = self.shared.connections.listen(Peer::Unix { path: Arc::clone(&path) });
        let permits = Arc::new(Semaphore::new(self.shared.options.connection_count_max));
        loop {
            let accepted = tokio::select! {
                () = shutdown.begun() => break,
                accepted = listener.accept() => accepted,
            };
            let mut stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection of the Unix socket");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                let _ = stream.write_all(REFUSAL).await;
                continue;
            };
            let serving =
                self.clone().serve_stream(stream, Peer::Unix { path: Arc::clone(&path) }, shutdown.clone());
            shutdown.spawn(async move {
                let _permit = permit;
                serving.await;
            });
        }
        let _ = std::fs::remove_file(&*path);
    }
}
