//! Blobs, uploads with a key and uploads in parts, over real connections.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use haystack::HaystackOptions;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::door::{Answer, FORM, Server, form, photo};
use crate::row_table::RowTable;

const MIB: usize = 1 << 20;

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]).collect()
}

fn needle_count(server: &Server) -> usize {
    server.service.stats().volumes.iter().map(|volume| volume.totals.needle_count).sum()
}

#[tokio::test]
async fn a_blob_of_any_length_comes_back_whole_and_in_ranges() {
    let server = Server::ready().await;
    for length in [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB + 7] {
        let content = bytes(length);
        let put = server.put("a%20dir/blob.txt", &[("content-type", "text/plain")], &content).await;
        assert_eq!(put.header("location"), "/blobs/a%20dir/blob.txt");
        assert_eq!(put.json()["bytes"], length);
        let got = server.get("/blobs/a%20dir/blob.txt").await;
        assert_eq!((got.status, got.body == content), (200, true), "{length}");
        assert_eq!((got.header("content-type"), got.header("etag")), ("text/plain", put.header("etag")));
        assert_eq!(got.header("content-security-policy"), "sandbox; default-src 'none'");
        let head = server.send("HEAD", "/blobs/a%20dir/blob.txt", &[], b"").await;
        assert_eq!((head.status, head.header("content-length")), (200, length.to_string().as_str()));
        assert_eq!(head.body, b"");
    }
    assert_eq!(needle_count(&server), 4, "what was replaced is deleted");
    let content = bytes(3 * MIB + 7);
    for (range, start, end) in [
        ("0-0", 0, 1),
        ("1048570-1048585", MIB - 6, MIB + 10),
        ("1000000-3145730", 1_000_000, 3 * MIB + 3),
        ("-9", 3 * MIB - 2, 3 * MIB + 7),
    ] {
        let part =
            server.send("GET", "/blobs/a%20dir/blob.txt", &[("range", &format!("bytes={range}"))], b"").await;
        assert_eq!((part.status, part.body == content[start..end]), (206, true), "{range}");
        assert_eq!(part.header("content-range"), format!("bytes {start}-{}/{}", end - 1, content.len()));
    }
    let outside = server.send("GET", "/blobs/a%20dir/blob.txt", &[("range", "bytes=9999999-")], b"").await;
    outside.assert_refused(416, "range_not_satisfiable");
    assert_eq!(server.send("DELETE", "/blobs/a%20dir/blob.txt", &[], b"").await.status, 204);
    assert_eq!(server.send("DELETE", "/blobs/a%20dir/blob.txt", &[], b"").await.status, 204);
    server.get("/blobs/a%20dir/blob.txt").await.assert_refused(404, "not_found");
    assert_eq!((needle_count(&server), server.rows.row_count("blobs")), (0, 0));
}

#[tokio::test]
async fn a_blob_is_put_and_read_under_conditions() {
    let server = Server::ready().await;
    let first = server.put("b", &[("if-none-match", "*")], b"one").await;
    assert_eq!(first.status, 201);
    server.put("b", &[("if-none-match", "*")], b"two").await.assert_refused(412, "precondition_failed");
    server.put("b", &[("if-match", "\"0123\"")], b"two").await.assert_refused(412, "precondition_failed");
    server.put("none", &[("if-match", "*")], b"two").await.assert_refused(412, "precondition_failed");
    server.put("b", &[("if-none-match", "\"0123\"")], b"x").await.assert_refused(400, "bad_condition");
    let tag = first.header("etag");
    let second = server.put("b", &[("if-match", tag)], b"two").await;
    assert_eq!(second.status, 200);
    assert_ne!(second.header("etag"), tag);
    server.put("b", &[("if-match", tag)], b"three").await.assert_refused(412, "precondition_failed");
    server
        .send("DELETE", "/blobs/b", &[("if-match", tag)], b"")
        .await
        .assert_refused(412, "precondition_failed");
    server
        .send("GET", "/blobs/b", &[("if-match", tag)], b"")
        .await
        .assert_refused(412, "precondition_failed");
    let tag = second.header("etag");
    assert_eq!(server.send("GET", "/blobs/b", &[("if-none-match", tag)], b"").await.status, 304);
    assert_eq!(server.get("/blobs/b").await.body, b"two");
    assert_eq!(needle_count(&server), 1, "what was refused is not kept");
    assert_eq!(server.send("DELETE", "/blobs/b", &[("if-match", tag)], b"").await.status, 204);
}

#[tokio::test]
async fn bad_blobs_are_refused_and_leave_nothing() {
    let options = HaystackOptions { blob_bytes_max: 2 << 20, ..HaystackOptions::default() };
    let server = Server::start(RowTable::default(), options).await;
    server.wait_until_ready().await;
    server.put("x", &[], &bytes(2 * MIB + 1)).await.assert_refused(413, "too_large");
    let chunked = [&b"200001\r\n"[..], &bytes(2 * MIB + 1), b"\r\n0\r\n\r\n"].concat();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(
            b"PUT /blobs/x HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .await
        .unwrap();
    stream.write_all(&chunked).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    Answer::parse(&answer).assert_refused(413, "too_large");
    server.put("", &[], b"x").await.assert_refused(405, "method_not_allowed");
    server.put("a%0Ab", &[], b"x").await.assert_refused(400, "bad_name");
    server.put("%ff", &[], b"x").await.assert_refused(400, "bad_name");
    server.put(&"n".repeat(1025), &[], b"x").await.assert_refused(400, "bad_name");
    server.rows.fail_with(Code::Unavailable);
    server.put("x", &[], b"x").await.assert_refused(503, "starting");
    assert_eq!((needle_count(&server), server.rows.row_count("blobs")), (0, 0));
}

#[tokio::test]
async fn blobs_are_listed_by_prefix_delimiter_and_page() {
    let server = Server::ready().await;
    for name in ["a", "dir/a", "dir/b/c", "dir/b/d", "dir/e", "e%20f", "dir%2Fz"] {
        assert_eq!(server.put(name, &[], name.as_bytes()).await.status, 201);
    }
    let names = |page: &Value| {
        let names =
            page["blobs"].as_array().unwrap().iter().map(|blob| blob["name"].as_str().unwrap().to_owned());
        (names.collect::<Vec<_>>(), page["prefixes"].clone())
    };
    let all = ["a", "dir/a", "dir/b/c", "dir/b/d", "dir/e", "dir/z", "e f"].map(str::to_owned).to_vec();
    assert_eq!(names(&server.get("/blobs").await.json()), (all.clone(), Value::Null));
    for limit in 1..8 {
        let (mut found, mut path) = (Vec::new(), format!("/blobs?limit={limit}"));
        loop {
            let page = server.get(&path).await.json();
            found.extend(names(&page).0);
            let Some(next) = page["next"].as_str() else { break };
            path = next.to_owned();
        }
        assert_eq!(found, all, "pages of {limit}");
    }
    let folded = server.get("/blobs?delimiter=%2F").await.json();
    assert_eq!(names(&folded), (vec!["a".to_owned(), "e f".to_owned()], serde_json::json!(["dir/"])));
    let mut found = Vec::new();
    let mut path = "/blobs?prefix=dir%2F&delimiter=%2F&limit=1".to_owned();
    loop {
        let page = server.get(&path).await.json();
        let (names, prefixes) = names(&page);
        found.extend(names);
        found.extend(
            prefixes.as_array().into_iter().flatten().map(|prefix| prefix.as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        path = next.to_owned();
    }
    assert_eq!(found, ["dir/a", "dir/b/", "dir/e", "dir/z"]);
}

#[tokio::test]
async fn an_upload_that_is_sent_again_is_one_photo() {
    let server = Server::ready().await;
    let (upload, key) = (photo(40, 30), [("idempotency-key", "\"8e03978e\"")]);
    let first = server.send("POST", "/photos?album=a", &key, &upload).await;
    let again = server.send("POST", "/photos?album=a", &key, &upload).await;
    assert_eq!((first.status, again.status, first.json()), (201, 201, again.json()));
    assert_eq!(first.header("location"), again.header("location"));
    let other = server.send("POST", "/photos?album=a", &key, &photo(41, 30)).await;
    other.assert_refused(422, "key_reused");
    server.send("POST", "/photos?album=b", &key, &upload).await.assert_refused(422, "key_reused");
    assert_eq!(
        (server.rows.row_count("photos"), server.service.stats().volumes[0].totals.photo_count),
        (1, 1)
    );
    let body = form(&[("p", Some("a.jpg"), &upload), ("p", Some("b.jpg"), &upload)]);
    let headers = [FORM[0], ("idempotency-key", "form")];
    let first = server.send("POST", "/photos", &headers, &body).await;
    let again = server.send("POST", "/photos", &headers, &body).await;
    assert_eq!((first.status, first.json()), (201, again.json()));
    assert_eq!(server.rows.row_count("photos"), 3);
    let long = "k".repeat(256);
    server
        .send("POST", "/photos", &[("idempotency-key", &long)], &upload)
        .await
        .assert_refused(400, "bad_key");
    // Deleted since: told as before, and not brought back.
    assert_eq!(server.send("DELETE", &first_url(&again), &[], b"").await.status, 204);
    assert_eq!(server.send("POST", "/photos", &headers, &body).await.json(), first.json());
    assert_eq!(server.rows.row_count("photos"), 2);
}

fn first_url(answer: &Answer) -> String {
    answer.json()["photos"][0]["url"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn uploads_with_one_key_at_once_are_one_photo() {
    let server = Server::ready().await;
    let (upload, key) = (photo(400, 300), [("idempotency-key", "at once")]);
    let sent = (0..8).map(|_| server.send("POST", "/photos", &key, &upload));
    let answers = futures_util::future::join_all(sent).await;
    for answer in answers {
        match answer.status {
            201 => {}
            _ => answer.assert_refused(409, "in_progress"),
        }
    }
    assert_eq!(
        (server.rows.row_count("photos"), server.service.stats().volumes[0].totals.photo_count),
        (1, 1)
    );
}

#[tokio::test]
async fn a_claim_whose_rows_a_crash_left_out_is_completed() {
    let server = Server::ready().await;
    let (upload, key) = (photo(40, 30), [("idempotency-key", "crash")]);
    let first = server.send("POST", "/photos?album=a", &key, &upload).await;
    server.rows.drop_rows("photos");
    server.rows.drop_rows("albums");
    let again = server.send("POST", "/photos?album=a", &key, &upload).await;
    assert_eq!((again.status, again.json()), (201, first.json()));
    assert_eq!((server.rows.row_count("photos"), server.rows.row_count("albums")), (1, 2));
}

const TUS: (&str, &str) = ("tus-resumable", "1.0.0");
const PART: (&str, &str) = ("content-type", "application/offset+octet-stream");

async fn create(server: &Server, length: usize, metadata: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        metadata.iter().map(|(key, value)| format!("{key} {}", BASE64_STANDARD.encode(value))).collect();
    let length = length.to_string();
    let headers = [TUS, ("upload-length", &length), ("upload-metadata", &pairs.join(","))];
    let created = server.send("POST", "/uploads", &headers, b"").await;
    assert_eq!(created.status, 201, "{created:?}");
    created.header("location").to_owned()
}

#[tokio::test]
async fn an_upload_in_parts_becomes_a_photo_or_a_blob() {
    let server = Server::ready().await;
    let options = server.send("OPTIONS", "/uploads", &[], b"").await;
    assert_eq!((options.status, options.header("tus-version")), (204, "1.0.0"));
    let upload = photo(300, 200);
    let path = create(&server, upload.len(), &[("filename", "a.jpg"), ("album", "sea")]).await;
    let (first, second) = upload.split_at(1000);
    let headers = [TUS, PART, ("upload-offset", "0")];
    let part = server.send("PATCH", &path, &headers, first).await;
    assert_eq!((part.status, part.header("upload-offset")), (204, "1000"));
    assert!(!part.header("upload-expires").is_empty());
    let wrong = server.send("PATCH", &path, &headers, second).await;
    wrong.assert_refused(409, "wrong_offset");
    let head = server.send("HEAD", &path, &[TUS], b"").await;
    assert_eq!(
        (head.status, head.header("upload-offset"), head.header("cache-control")),
        (200, "1000", "no-store")
    );
    assert_eq!(head.header("upload-length"), upload.len().to_string());
    let last = server.send("PATCH", &path, &[TUS, PART, ("upload-offset", "1000")], second).await;
    assert_eq!(last.status, 204, "{last:?}");
    let url = last.header("location");
    assert_eq!(server.get(url).await.body, upload);
    let album = server.get("/albums/sea").await.json();
    assert_eq!(album["photos"][0]["filename"], "a.jpg");
    assert_eq!(
        needle_count(&server),
        5 - 2,
        "the parts are gone, and sizes that are the same share a needle"
    );

    let content = bytes(2 * MIB + 5);
    let path = create(&server, content.len(), &[("blob", "big/file"), ("filetype", "text/plain")]).await;
    let done = server.send("PATCH", &path, &headers, &content).await;
    assert_eq!((done.status, done.header("location")), (204, "/blobs/big/file"));
    let got = server.get("/blobs/big/file").await;
    assert_eq!((got.body == content, got.header("content-type")), (true, "text/plain"));
    let told = server.get(&path).await.json();
    assert_eq!((&told["offset"], &told["url"]), (&content.len().into(), &"/blobs/big/file".into()));
    assert_eq!(server.send("DELETE", &path, &[TUS], b"").await.status, 204);
    assert_eq!(server.get("/blobs/big/file").await.status, 200, "what an upload became outlives it");
}

#[tokio::test]
async fn bad_parts_are_refused_and_change_nothing() {
    let server = Server::ready().await;
    let path = create(&server, 10, &[("blob", "b")]).await;
    let at_zero = ("upload-offset", "0");
    server.send("PATCH", &path, &[PART, at_zero], b"x").await.assert_refused(412, "tus_version");
    server.send("PATCH", &path, &[TUS, at_zero], b"x").await.assert_refused(415, "bad_part_type");
    server
        .send("PATCH", &path, &[TUS, PART, at_zero], b"12345678901")
        .await
        .assert_refused(413, "beyond_length");
    let sum = ("upload-checksum", "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=");
    server
        .send("PATCH", &path, &[TUS, PART, at_zero, sum], b"hello w")
        .await
        .assert_refused(460, "checksum_mismatch");
    let odd = ("upload-checksum", "crc32 AAAA");
    server.send("PATCH", &path, &[TUS, PART, at_zero, odd], b"x").await.assert_refused(400, "bad_checksum");
    server.send("PATCH", "/uploads/none", &[TUS, PART, at_zero], b"x").await.assert_refused(404, "not_found");
    server.send("POST", "/uploads", &[TUS], b"").await.assert_refused(400, "no_length");
    let huge = ("upload-length", "99999999999999");
    server.send("POST", "/uploads", &[TUS, huge], b"").await.assert_refused(413, "too_large");
    assert_eq!(server.send("HEAD", &path, &[TUS], b"").await.header("upload-offset"), "0");
    assert_eq!(needle_count(&server), 0);
    // sha1 of "hello world"; the right one is taken.
    let path = create(&server, 11, &[("blob", "hello")]).await;
    let done = server.send("PATCH", &path, &[TUS, PART, at_zero, sum], b"hello world").await;
    assert_eq!(done.status, 204, "{done:?}");
    let path = create(&server, 9, &[]).await;
    server
        .send("PATCH", &path, &[TUS, PART, at_zero], b"no photo!")
        .await
        .assert_refused(415, "not_an_image");
    assert_eq!(
        server.send("HEAD", &path, &[TUS], b"").await.status,
        404,
        "what cannot become a photo is forgotten"
    );
    let path = create(&server, 9, &[("blob", "x")]).await;
    assert_eq!(server.send("PATCH", &path, &[TUS, PART, at_zero], b"abc").await.status, 204);
    assert_eq!(server.send("DELETE", &path, &[TUS], b"").await.status, 204);
    assert_eq!(server.send("HEAD", &path, &[TUS], b"").await.status, 404);
    assert_eq!(needle_count(&server), 1);
}

/// How much of an upload the server says it has.
async fn offset_of(server: &Server, path: &str) -> usize {
    let head = server.send("HEAD", path, &[TUS], b"").await;
    head.header("upload-offset").parse().unwrap()
}

#[tokio::test]
async fn what_arrived_of_a_part_that_broke_off_is_kept() {
    let server = Server::ready().await;
    let content = bytes(2 * MIB);
    let path = create(&server, content.len(), &[("blob", "b")]).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nhost: h\r\ntus-resumable: 1.0.0\r\ncontent-type: application/offset+octet-stream\r\n\
         upload-offset: 0\r\ncontent-length: {}\r\n\r\n",
        content.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&content[..MIB + 1000]).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    // Something was taken of the part, and then nobody is at it any more.
    while offset_of(&server, &path).await == 0
        || server.send("PATCH", &path, &[TUS, PART, ("upload-offset", "99")], b"").await.status == 423
    {
        tokio::task::yield_now().await;
    }
    let offset = offset_of(&server, &path).await;
    assert_eq!(offset, MIB + 1000);
    let done = server
        .send("PATCH", &path, &[TUS, PART, ("upload-offset", &offset.to_string())], &content[offset..])
        .await;
    assert_eq!(done.status, 204, "{done:?}");
    assert!(server.get("/blobs/b").await.body == content);
}

#[tokio::test]
async fn many_photos_are_deleted_at_once() {
    let server = Server::ready().await;
    let mut ids = Vec::new();
    for album in ["?album=a", "?album=a", ""] {
        let answer = server.send("POST", &format!("/photos{album}"), &[], &photo(20, 20)).await;
        ids.push(answer.json()["id"].as_str().unwrap().to_owned());
    }
    let body = serde_json::json!({"ids": [ids[2], "nonsense", ids[2]]}).to_string();
    let answer = server.send("POST", "/photos/delete", &[], body.as_bytes()).await.json();
    assert_eq!(answer["deleted"], serde_json::json!([ids[2], ids[2]]));
    assert_eq!(answer["failed"][0]["code"], "not_found");
    server.send("POST", "/photos/delete", &[], b"[]").await.assert_refused(400, "bad_ids");
    assert_eq!(server.send("DELETE", "/albums/a", &[], b"").await.json()["deleted"], 2);
    assert_eq!(server.send("DELETE", "/albums/a", &[], b"").await.json()["deleted"], 0);
    assert_eq!((server.rows.row_count("photos"), server.rows.row_count("albums")), (0, 0));
}
