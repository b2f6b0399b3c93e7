//! The door with TLS. The certificates of `golden/tls` are for `localhost` and
//! sign themselves; nobody trusts them but these tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache_proxy::{CacheOptions, Certificates};
use cluster::Door;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::house::House;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tls").join(name)
}

/// What a client that trusts `root` is answered to `request`.
async fn ask(address: std::net::SocketAddr, root: &str, request: &str) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(golden(root)).unwrap()).unwrap();
    let provider = Arc::new(rustls_graviola::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await?;
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[test]
fn certificates_are_read_again_while_connections_are_open() {
    let folder = std::env::temp_dir().join(format!("hayloft-cache-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (chain, key) = (folder.join("chain.pem"), folder.join("key.pem"));
    let install = |name: &str| {
        std::fs::copy(golden(&format!("{name}.chain.pem")), &chain).unwrap();
        std::fs::copy(golden(&format!("{name}.key.pem")), &key).unwrap();
    };
    install("first");
    let house = House::open(CacheOptions::default());
    let options = house.cache.options().door(([127, 0, 0, 1], 0).into(), false);
    let door = house.block_on(Door::open(options)).unwrap();
    let address = door.local_address();
    let certificates = Arc::new(Certificates::read(chain.clone(), key.clone()).unwrap());
    let (cache, shutdown) = (house.cache.clone(), house.shutdown.clone());
    house.spawn(async move { cache.serve_tls(door, certificates, shutdown).await });

    let big = "v".repeat(100_000);
    let request = format!("set k 0 0 100000\r\n{big}\r\nget k\r\nquit\r\n");
    let answer = house.block_on(ask(address, "first.chain.pem", &request)).unwrap();
    assert!(answer == format!("STORED\r\nVALUE k 0 100000\r\n{big}\r\nEND\r\n"), "{}", &answer[..50]);
    house.block_on(ask(address, "second.chain.pem", "mn\r\n")).unwrap_err();

    install("second");
    let mut client = house.client();
    client.ask(b"refresh_certs\r\n", b"OK\r\n");
    assert_eq!(house.block_on(ask(address, "second.chain.pem", "mn\r\nquit\r\n")).unwrap(), "MN\r\n");
    // What is wrong leaves what was.
    std::fs::write(&chain, "no certificate").unwrap();
    client.ask(b"refresh_certs\r\n", b"ERROR\r\n");
    assert_eq!(house.block_on(ask(address, "second.chain.pem", "mn\r\nquit\r\n")).unwrap(), "MN\r\n");
    // Who does not speak TLS gets no answer.
    let mut plain = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut plain, b"get k\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = std::io::Read::read_to_end(&mut plain, &mut answer);
    assert!(!answer.starts_with(b"END") && !answer.starts_with(b"VALUE"));
    std::fs::remove_dir_all(folder).unwrap();
}
