//! The photo door over real connections: what is sent, and what comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::{Door, DoorOptions, Shutdown};
use haystack::imaging::variant::Variant;
use haystack::signature::sign;
use haystack::{Haystack, HaystackOptions};
use image::{Rgb, RgbImage};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use vfs::SimulatedFileSystem;

use crate::images::jpeg;
use crate::row_table::RowTable;

pub struct Server {
    pub service: Haystack,
    pub rows: RowTable,
    pub address: SocketAddr,
    pub shutdown: Shutdown,
}

impl Server {
    pub async fn start(rows: RowTable, options: HaystackOptions) -> Self {
        let fs = Arc::new(SimulatedFileSystem::new());
        let options = HaystackOptions { dir: "/photos".into(), disk_reserve_bytes: 0, ..options };
        let service = Haystack::open(options, fs, rows.client()).unwrap();
        let door = Door::open(DoorOptions {
            name: "photos",
            address: "127.0.0.1:0".parse().unwrap(),
            insecure: false,
            connection_count_max: 100,
            refusal: b"",
        });
        let door = door.await.unwrap();
        let (address, shutdown) = (door.local_address(), Shutdown::new());
        let (serving, stop) = (service.clone(), shutdown.clone());
        tokio::spawn(async move { serving.serve(door, stop).await });
        Self { service, rows, address, shutdown }
    }

    /// A server whose directory answers.
    pub async fn ready() -> Self {
        let server = Self::start(RowTable::default(), HaystackOptions::default()).await;
        server.wait_until_ready().await;
        server
    }

    pub async fn wait_until_ready(&self) {
        while !self.service.stats().directory_ready {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What `body` became as the blob `name`.
    pub async fn put(&self, name: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send("PUT", &format!("/blobs/{name}"), headers, body).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            request += &format!("content-length: {}\r\n", body.len());
        }
        request += "\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        Answer::parse(&answer)
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    pub async fn upload(&self, photo: &[u8]) -> Value {
        let answer = self.send("POST", "/photos", &[("content-type", "image/jpeg")], photo).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { status, headers, body: bytes[end + 4..].to_vec() }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    pub fn assert_refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.json()["code"].as_str()), (status, Some(code)), "{self:?}");
    }
}

pub fn photo(width: u32, height: u32) -> Bytes {
    jpeg(
        &RgbImage::from_fn(width, height, |x, y| Rgb([x, y, x * y].map(|level| level.to_le_bytes()[0]))),
        None,
    )
}

pub fn form(parts: &[(&str, Option<&str>, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, filename, content) in parts {
        let filename = filename.map(|filename| format!("; filename=\"{filename}\"")).unwrap_or_default();
        body.extend(
            format!("--B\r\ncontent-disposition: form-data; name=\"{name}\"{filename}\r\n\r\n").bytes(),
        );
        body.extend(*content);
        body.extend(b"\r\n");
    }
    body.extend(b"--B--\r\n");
    body
}

pub const FORM: [(&str, &str); 1] = [("content-type", "multipart/form-data; boundary=B")];

#[tokio::test]
async fn a_photo_goes_in_and_comes_back_in_every_size() {
    let server = Server::ready().await;
    let upload = photo(1200, 900);
    let answer =
        server.send("POST", "/photos?album=Summer%20days", &[("content-type", "image/jpeg")], &upload).await;
    assert_eq!(answer.status, 201);
    let created = answer.json();
    let url = created["url"].as_str().unwrap();
    assert_eq!(answer.header("location"), url);
    let original = server.get(url).await;
    assert_eq!((original.status, &original.body[..]), (200, &upload[..]));
    assert_eq!(original.header("content-type"), "image/jpeg");
    assert_eq!(original.header("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(original.header("vary"), "accept");
    for (name, expected) in
        [("original", 1200), ("large", 1200), ("medium", 1024), ("small", 512), ("thumb", 160)]
    {
        let size = &created["sizes"][name];
        let found = server.get(size["url"].as_str().unwrap()).await;
        assert_eq!(found.body.len() as u64, size["bytes"].as_u64().unwrap());
        let image = image::load_from_memory(&found.body).unwrap();
        assert_eq!((image.width(), Some(u64::from(image.height()))), (expected, size["height"].as_u64()));
        assert_eq!(size["width"], expected);
    }
    let head = server.send("HEAD", url, &[], b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), upload.len().to_string());
    let described = server.send("GET", url, &[("accept", "application/json")], b"").await;
    assert_eq!(described.json(), created);
    assert_eq!(created["album"], "Summer days");
}

#[tokio::test]
async fn conditional_and_range_requests_are_honoured() {
    let server = Server::ready().await;
    let upload = photo(300, 200);
    let url = server.upload(&upload).await["sizes"]["original"]["url"].as_str().unwrap().to_owned();
    let whole = server.get(&url).await;
    let (tag, date) = (whole.header("etag"), whole.header("last-modified"));
    assert_eq!(server.send("GET", &url, &[("if-none-match", tag)], b"").await.status, 304);
    assert_eq!(server.send("GET", &url, &[("if-modified-since", date)], b"").await.status, 304);
    let headers = [("if-none-match", "\"other\""), ("if-modified-since", date)];
    assert_eq!(server.send("GET", &url, &headers, b"").await.status, 200);
    let part = server.send("GET", &url, &[("range", "bytes=10-19")], b"").await;
    assert_eq!((part.status, &part.body[..]), (206, &upload[10..20]));
    assert_eq!(part.header("content-range"), format!("bytes 10-19/{}", upload.len()));
    let stale = server.send("GET", &url, &[("range", "bytes=10-19"), ("if-range", "\"other\"")], b"").await;
    assert_eq!((stale.status, stale.body.len()), (200, upload.len()));
    let outside = server.send("GET", &url, &[("range", "bytes=99999999-")], b"").await;
    outside.assert_refused(416, "range_not_satisfiable");
    assert_eq!(outside.header("content-range"), format!("bytes */{}", upload.len()));
}

#[tokio::test]
async fn a_deleted_photo_is_gone_and_may_be_deleted_again() {
    let server = Server::ready().await;
    let answer = server.send("POST", "/photos?album=a", &[], &photo(30, 30)).await;
    let url = answer.json()["url"].as_str().unwrap().to_owned();
    let mut guess = url.clone().into_bytes();
    let cookie_at = guess.len() - 5;
    guess[cookie_at] = if guess[cookie_at] == b'A' { b'B' } else { b'A' };
    let guess = String::from_utf8(guess).unwrap();
    server.send("DELETE", &guess, &[], b"").await.assert_refused(404, "not_found");
    server.get(&guess).await.assert_refused(404, "not_found");
    assert_eq!((server.rows.row_count("photos"), server.rows.row_count("albums")), (1, 2));
    assert_eq!(server.send("DELETE", &url, &[], b"").await.status, 204);
    assert_eq!(server.send("DELETE", &url, &[], b"").await.status, 204);
    server.get(&url).await.assert_refused(404, "not_found");
    assert_eq!((server.rows.row_count("photos"), server.rows.row_count("albums")), (0, 0));
}

#[tokio::test]
async fn a_form_of_several_photos_fills_an_album_that_is_read_in_pages() {
    let server = Server::ready().await;
    let (first, second, third) = (photo(30, 20), photo(20, 30), photo(25, 25));
    let body = form(&[
        ("photo", Some("a.jpg"), &first),
        ("album", None, "f\u{ea}te".as_bytes()),
        ("photo", Some("b.jpg"), &second),
        ("photo", Some("C:\\c.jpg"), &third),
        ("photo", Some(""), b""),
    ]);
    let answer = server.send("POST", "/photos", &FORM, &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.json()["photos"].as_array().unwrap().len(), 3);
    let page = server.get("/albums/f%C3%AAte?limit=2").await.json();
    let names = |page: &Value| {
        let photos = page["photos"].as_array().unwrap().clone();
        photos.iter().map(|photo| photo["filename"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        (page["album"].as_str(), names(&page)),
        (Some("f\u{ea}te"), vec!["c.jpg".to_owned(), "b.jpg".to_owned()])
    );
    let last = server.get(page["next"].as_str().unwrap()).await.json();
    assert_eq!((names(&last), &last["next"]), (vec!["a.jpg".to_owned()], &Value::Null));
    assert_eq!(server.get("/albums/none").await.json()["photos"], Value::Array(Vec::new()));
    server.get("/albums/none?limit=0").await.assert_refused(400, "bad_limit");
}

#[tokio::test]
async fn photos_and_albums_are_listed_in_pages() {
    let server = Server::ready().await;
    assert_eq!(server.get("/photos").await.json()["photos"], Value::Array(Vec::new()));
    assert_eq!(server.get("/albums").await.json()["albums"], Value::Array(Vec::new()));
    let mut urls = Vec::new();
    for album in ["?album=b%2Fsea", "", "?album=a", "?album=b%2Fsea"] {
        let answer = server.send("POST", &format!("/photos{album}"), &[], &photo(20, 20)).await;
        urls.insert(0, answer.json()["url"].clone());
    }
    let page = server.get("/photos?limit=3").await.json();
    let listed = |page: &Value| {
        page["photos"].as_array().unwrap().iter().map(|photo| photo["url"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&page), urls[..3]);
    let rest = server.get(page["next"].as_str().unwrap()).await.json();
    assert_eq!((listed(&rest), &rest["next"]), (urls[3..].to_vec(), &Value::Null));
    let first = server.get("/albums?limit=1").await.json();
    assert_eq!((&first["albums"][0]["album"], &first["albums"][0]["newest"]["url"]), (&"a".into(), &urls[1]));
    let second = server.get(first["next"].as_str().unwrap()).await.json();
    assert_eq!(
        (&second["albums"][0]["album"], &second["albums"][0]["url"]),
        (&"b/sea".into(), &"/albums/b%2Fsea".into())
    );
    assert_eq!(second["albums"][0]["newest"]["url"], urls[0]);
    assert_eq!(server.get(second["next"].as_str().unwrap()).await.json()["albums"], Value::Array(Vec::new()));
    assert_eq!(listed(&server.get("/albums/b%2Fsea").await.json()), [urls[0].clone(), urls[3].clone()]);
}

#[tokio::test]
async fn a_form_with_one_bad_file_stores_nothing() {
    let server = Server::ready().await;
    let (good, text) = (photo(30, 20), b"dear diary".as_slice());
    let body = form(&[("p", Some("good.jpg"), &good), ("p", Some("text.jpg"), text), ("album", None, b"a")]);
    let answer = server.send("POST", "/photos", &FORM, &body).await;
    answer.assert_refused(415, "not_an_image");
    let message = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("text.jpg") && message.contains("this is text"), "{message}");
    assert_eq!((server.rows.row_count("photos"), server.rows.row_count("albums")), (0, 0));
    assert_eq!(server.service.stats().volumes[0].totals.photo_count, 0);
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong_with_them() {
    let server = Server::ready().await;
    let url = server.upload(&photo(30, 30)).await["url"].as_str().unwrap().to_owned();
    server.send("POST", "/photos", &FORM, b"--B\r\nno form at all").await.assert_refused(400, "broken_form");
    let no_boundary = [("content-type", "multipart/form-data")];
    server.send("POST", "/photos", &no_boundary, b"x").await.assert_refused(400, "broken_form");
    server.send("POST", "/photos", &FORM, &form(&[])).await.assert_refused(400, "no_photo");
    server.send("POST", "/photos?album=a%0Ab", &[], b"x").await.assert_refused(400, "bad_album");
    server.send("POST", "/photos", &[], b"").await.assert_refused(415, "not_an_image");
    server.send("POST", "/photos", &[], &photo(30, 30)[..300]).await.assert_refused(422, "damaged_image");
    let put = server.send("PUT", "/photos", &[], b"x").await;
    put.assert_refused(405, "method_not_allowed");
    assert_eq!(put.header("allow"), "GET, HEAD, POST");
    let post = server.send("POST", &url, &[], b"x").await;
    assert_eq!((post.status, post.header("allow")), (405, "GET, HEAD, DELETE"));
    server.get(&format!("{url}/huge")).await.assert_refused(404, "no_such_size");
    server.get("/photos/nonsense").await.assert_refused(404, "not_found");
    server.get("/elsewhere").await.assert_refused(404, "not_found");
    assert_eq!(server.get("/").await.header("content-type"), "text/html; charset=utf-8");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_and_the_answer_can_be_read() {
    let options = HaystackOptions { photo_bytes_max: 1 << 20, ..HaystackOptions::default() };
    let server = Server::start(RowTable::default(), options).await;
    server.wait_until_ready().await;
    let large = vec![0; 20 << 20];
    let refused = server.send("POST", "/photos", &[("content-type", "image/jpeg")], &large).await;
    refused.assert_refused(413, "too_large");
    assert_eq!(refused.json()["limit"], 1 << 20);
    let body = form(&[("p", Some("a.jpg"), &large)]);
    server.send("POST", "/photos", &FORM, &body).await.assert_refused(413, "too_large");
}

#[tokio::test]
async fn uploads_wait_for_the_directory_and_reads_do_not() {
    let rows = RowTable::default();
    rows.fail_with(Code::Unavailable);
    let server = Server::start(rows, HaystackOptions::default()).await;
    let early = server.send("POST", "/photos", &[], &photo(30, 30)).await;
    early.assert_refused(503, "starting");
    assert_eq!(early.header("retry-after"), "1");
    server.rows.fail_with(Code::Ok);
    server.wait_until_ready().await;
    let url = server.upload(&photo(30, 30)).await["url"].as_str().unwrap().to_owned();
    server.rows.fail_with(Code::Unavailable);
    assert_eq!(server.get(&url).await.status, 200);
    let refused = server.send("POST", "/photos", &[], &photo(30, 30)).await;
    refused.assert_refused(503, "starting");
    assert_eq!(
        server.service.stats().volumes[0].totals.photo_count,
        1,
        "a photo without a row is taken back"
    );
    server.rows.fail_with(Code::PermissionDenied);
    server.send("POST", "/photos", &[], &photo(30, 30)).await.assert_refused(500, "directory");
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_closes_the_volumes() {
    let server = Server::ready().await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    idle.read_u8().await.unwrap();
    server.shutdown.begin();
    assert!(server.shutdown.drained(Duration::from_secs(10)).await);
    server.service.close().await;
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn a_slow_body_is_given_up() {
    let options = HaystackOptions { body_timeout: Duration::from_secs(1), ..HaystackOptions::default() };
    let server = Server::start(RowTable::default(), options).await;
    server.wait_until_ready().await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(b"POST /photos HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nx").await.unwrap();
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.unwrap();
    Answer::parse(&answer).assert_refused(408, "too_slow");
}

#[tokio::test]
async fn uploads_beyond_the_memory_for_them_are_told_when_to_come_again() {
    let options = HaystackOptions {
        photo_bytes_max: 1 << 20,
        body_bytes_in_flight_max: 1 << 20,
        body_timeout: Duration::from_secs(1),
        body_rate_min: 1,
        ..HaystackOptions::default()
    };
    let server = Server::start(RowTable::default(), options).await;
    server.wait_until_ready().await;
    let mut hoarder = TcpStream::connect(server.address).await.unwrap();
    hoarder.write_all(b"POST /photos HTTP/1.1\r\nhost: h\r\ncontent-length: 1048576\r\n\r\n").await.unwrap();
    let hoarding = tokio::spawn(async move {
        while hoarder.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut refused = server.send("POST", "/photos", &[], &photo(30, 30)).await;
    while refused.status == 201 {
        // The hoarder's first byte had not arrived.
        refused = server.send("POST", "/photos", &[], &photo(30, 30)).await;
    }
    refused.assert_refused(503, "busy");
    assert_eq!(refused.header("retry-after"), "2");
    hoarding.abort();
    // Its connection ends with it, and gives the room back.
    while server.send("POST", "/photos", &[], &photo(30, 30)).await.status != 201 {}
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let options = HaystackOptions { body_timeout: Duration::from_secs(1), ..HaystackOptions::default() };
    let server = Server::start(RowTable::default(), options).await;
    server.wait_until_ready().await;
    let idle = server.shutdown.running_count();
    // Larger than the socket's buffers: noise does not compress.
    let noise = RgbImage::from_fn(3000, 3000, |x, y| {
        let mixed = (x * 7919 + y * 104_729).wrapping_mul(2_654_435_761);
        Rgb([mixed, mixed >> 8, mixed >> 16].map(|level| level.to_le_bytes()[3]))
    });
    let url = server.upload(&jpeg(&noise, None)).await["url"].as_str().unwrap().to_owned();
    let mut deaf = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..3 {
        deaf.write_all(format!("GET {url} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes()).await.unwrap();
    }
    // Nothing is read until the server has hung up, which its count of tasks shows.
    while server.shutdown.running_count() == idle {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while server.shutdown.running_count() > idle {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Options with keys and listed variants, and a key.
fn signing() -> (HaystackOptions, &'static [u8]) {
    let listed = ["w=100&h=60&fit=cover", "w=64&fm=auto"];
    let options = HaystackOptions {
        variants_listed: listed.map(|name| Variant::parse(name).unwrap().unwrap()).to_vec(),
        signing_keys: vec![b"a key of this test".to_vec()],
        ..HaystackOptions::default()
    };
    (options, b"a key of this test")
}

#[tokio::test]
async fn variants_are_listed_or_signed() {
    let (options, key) = signing();
    let server = Server::start(RowTable::default(), options).await;
    server.wait_until_ready().await;
    let url = server.upload(&photo(400, 300)).await["url"].as_str().unwrap().to_owned();
    let listed = server.get(&format!("{url}?fit=cover&h=60&w=100")).await;
    assert_eq!(
        (listed.status, listed.header("content-type"), listed.header("vary")),
        (200, "image/jpeg", "")
    );
    let image = image::load_from_memory(&listed.body).unwrap();
    assert_eq!((image.width(), image.height()), (100, 60));
    let tag = listed.header("etag");
    let again =
        server.send("GET", &format!("{url}?w=100&h=60&fit=cover"), &[("if-none-match", tag)], b"").await;
    assert_eq!(again.status, 304);
    server.get(&format!("{url}?w=101")).await.assert_refused(403, "variant_not_listed");
    server.get(&format!("{url}?w=0")).await.assert_refused(400, "bad_variant");
    server.get(&format!("{url}?w=64&fm=avif")).await.assert_refused(400, "bad_variant");
    let auto = server.send("GET", &format!("{url}?w=64&fm=auto"), &[("accept", "image/webp,*/*")], b"").await;
    assert_eq!(
        (auto.status, auto.header("vary"), auto.header("content-type")),
        (200, "accept", "image/jpeg")
    );
    let signed = sign(&format!("{url}?w=101&fm=webp"), u64::MAX / 2, key);
    let webp = server.get(&signed).await;
    assert_eq!((webp.status, webp.header("content-type")), (200, "image/webp"));
    assert!(webp.header("cache-control").starts_with("private, max-age="));
    assert_eq!(image::load_from_memory(&webp.body).unwrap().width(), 101);
    server.get(&signed.replace("w=101", "w=102")).await.assert_refused(403, "bad_signature");
    server.get(&sign(&format!("{url}?w=101"), 1000, key)).await.assert_refused(403, "expired");
    assert_eq!(server.send("DELETE", &url, &[], b"").await.status, 204);
    server.get(&signed).await.assert_refused(404, "not_found");
}

#[tokio::test]
async fn where_reading_needs_a_signature_nothing_is_read_without() {
    let (options, key) = signing();
    let server = Server::start(RowTable::default(), HaystackOptions { signed_only: true, ..options }).await;
    server.wait_until_ready().await;
    let url = server.upload(&photo(40, 30)).await["url"].as_str().unwrap().to_owned();
    server.put("b", &[], b"secret").await;
    for path in [url.as_str(), &format!("{url}/thumb"), &format!("{url}?w=64&fm=auto"), "/blobs/b"] {
        server.get(path).await.assert_refused(403, "unsigned");
        assert_eq!(server.get(&sign(path, u64::MAX / 2, key)).await.status, 200, "{path}");
    }
    // A name may point to other bytes tomorrow, signed or not.
    let blob = server.get(&sign("/blobs/b", u64::MAX / 2, key)).await;
    assert_eq!(blob.header("cache-control"), "private, no-cache");
}
