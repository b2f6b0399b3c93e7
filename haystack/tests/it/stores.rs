//! A store over the network is the same as one in the process.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::{Door, DoorOptions, Shutdown};
use haystack::index::KnownKey;
use haystack::photo_id::{Cookie, PhotoId, PhotoKey, VolumeId};
use haystack::stores::client::RemoteStore;
use haystack::stores::local::LocalStore;
use haystack::stores::{Burial, Found, PhotoNeedles, ReplicaState, VolumeStore};
use haystack::volume::StoredNeedle;
use haystack::writer::Purpose;
use haystack::{Error, PhotoSize};
use vfs::SimulatedFileSystem;

use crate::shelf::{DIR, open, photo, read_file, write_file};

const VOLUME: VolumeId = VolumeId(1);

fn needles(key: u64) -> PhotoNeedles {
    PhotoNeedles { key: PhotoKey(key), cookie: Cookie(key * 31), sizes: photo(key.to_le_bytes()[0]) }
}

fn id(key: u64) -> PhotoId {
    PhotoId { volume: VOLUME, key: PhotoKey(key), cookie: Cookie(key * 31) }
}

fn local(fs: &SimulatedFileSystem) -> LocalStore {
    LocalStore::open(Arc::new(open(fs)), Arc::default(), "rack=a".parse().unwrap(), 7).unwrap()
}

async fn serve(store: Arc<dyn VolumeStore>, token: Option<&str>) -> (String, Shutdown) {
    let door = Door::open(DoorOptions {
        name: "store",
        address: ([127, 0, 0, 1], 0).into(),
        insecure: false,
        connection_count_max: 16,
        refusal: b"",
    });
    let door = door.await.unwrap();
    let address = format!("http://{}", door.local_address());
    let shutdown = Shutdown::new();
    tokio::spawn(haystack::stores::server::serve(store, token.map(str::to_owned), door, shutdown.clone()));
    (address, shutdown)
}

/// What every store does, wherever it is.
async fn check(store: &dyn VolumeStore) {
    assert!(matches!(store.keys(VOLUME, None, 9).await, Err(Error::NoReplica { volume: VOLUME })));
    let physical = store.create_replica(VOLUME, true).await.unwrap();
    assert!(matches!(store.create_replica(VOLUME, false).await, Err(Error::ReplicaExists { .. })));
    let photos = [needles(5), needles(9), needles(7)];
    assert!(store.append(VOLUME, &photos, Purpose::Upload).await.unwrap() > 0);
    store.bury(VOLUME, &[Burial { key: PhotoKey(9), cookie: Cookie(0) }]).await.unwrap();
    store.bury(VOLUME, &[Burial { key: PhotoKey(6), cookie: Cookie(0) }]).await.unwrap();
    store.append(VOLUME, &[needles(6)], Purpose::Repair).await.unwrap();

    let needle = store.read(&id(5), PhotoSize::Thumb).await.unwrap().unwrap();
    let checksum = StoredNeedle::checksum_of(PhotoKey(5), id(5).cookie);
    assert_eq!((needle.data, needle.checksum), (photo(5)[2].2.clone(), checksum));
    assert!(store.read(&id(9), PhotoSize::Thumb).await.unwrap().is_none(), "deleted");
    assert!(store.read(&id(6), PhotoSize::Thumb).await.unwrap().is_none(), "deleted before it came");
    let guessed = PhotoId { cookie: Cookie(1), ..id(5) };
    assert!(store.read(&guessed, PhotoSize::Thumb).await.unwrap().is_none());
    assert_eq!(store.cookie(VOLUME, PhotoKey(7)).await.unwrap(), Some(Cookie(7 * 31)));
    assert_eq!(store.cookie(VOLUME, PhotoKey(8)).await.unwrap(), None);

    let known = |key, buried| KnownKey { key: PhotoKey(key), buried };
    let first = store.keys(VOLUME, None, 3).await.unwrap();
    assert_eq!(first, [known(5, false), known(6, true), known(7, false)]);
    assert_eq!(store.keys(VOLUME, Some(PhotoKey(7)), 3).await.unwrap(), [known(9, true)]);
    let copies = store.photos(VOLUME, &[PhotoKey(5), PhotoKey(9)]).await.unwrap();
    assert_eq!(copies, [Found::Photo(needles(5)), Found::Absent(PhotoKey(9))]);

    store.probe(VOLUME).await.unwrap();
    assert!(store.report().await.unwrap().replicas[0].filling);
    store.finish_filling(VOLUME).await.unwrap();
    store.seal(VOLUME).await.unwrap();
    let refused = store.append(VOLUME, &[needles(11)], Purpose::Upload).await;
    assert!(matches!(refused, Err(Error::Sealed { volume: VOLUME })));
    let report = store.report().await.unwrap();
    assert_eq!(report.labels.rack(), "a");
    let replica = report.replica(VOLUME).unwrap();
    assert_eq!((replica.physical, replica.filling, replica.photo_count), (physical, false, 2));
    assert_eq!((replica.state, replica.key_max), (ReplicaState::Sealed, 9));
    assert!(store.remove_replica(VOLUME, physical + 1).await.is_err());
    store.remove_replica(VOLUME, physical).await.unwrap();
    assert_eq!(store.report().await.unwrap().replicas, []);
}

#[tokio::test]
async fn a_store_in_the_process_keeps_the_contract() {
    check(&local(&SimulatedFileSystem::new())).await;
}

#[tokio::test]
async fn a_store_over_the_network_keeps_the_contract() {
    let store = Arc::new(local(&SimulatedFileSystem::new()));
    let (address, shutdown) = serve(store, Some("a token of some length")).await;
    check(&RemoteStore::new(&address, Some("a token of some length")).unwrap()).await;
    shutdown.begin();
}

#[tokio::test]
async fn a_store_is_the_same_after_a_restart_and_another_one_when_wiped() {
    let fs = SimulatedFileSystem::new();
    let store = local(&fs);
    store.create_replica(VOLUME, true).await.unwrap();
    store.append(VOLUME, &[needles(5)], Purpose::Repair).await.unwrap();
    store.bury(VOLUME, &[Burial { key: PhotoKey(6), cookie: Cookie(0) }]).await.unwrap();
    let before = store.report().await.unwrap();
    drop(store);
    let store = local(&fs);
    let after = store.report().await.unwrap();
    assert_eq!((after.id, after.replicas), (before.id, before.replicas));
    store.append(VOLUME, &[needles(6)], Purpose::Repair).await.unwrap();
    assert!(store.read(&id(6), PhotoSize::Thumb).await.unwrap().is_none());
    let wiped =
        LocalStore::open(Arc::new(open(&SimulatedFileSystem::new())), Arc::default(), Default::default(), 8)
            .unwrap();
    assert_ne!(wiped.report().await.unwrap().id, before.id);
}

#[tokio::test]
async fn a_damaged_photo_is_told_and_repaired_by_appending_it_again() {
    let fs = SimulatedFileSystem::new();
    let store = local(&fs);
    store.create_replica(VOLUME, false).await.unwrap();
    store.append(VOLUME, &[needles(5)], Purpose::Upload).await.unwrap();
    store.seal(VOLUME).await.unwrap();
    let path = format!("{DIR}/00000001.volume");
    let mut bytes = read_file(&fs, &path);
    bytes[100] ^= 1;
    write_file(&fs, &path, &bytes);
    let store = Arc::new(store);
    let (address, shutdown) = serve(Arc::clone(&store) as Arc<dyn VolumeStore>, None).await;
    let remote = RemoteStore::new(&address, None).unwrap();
    assert!(matches!(remote.read(&id(5), PhotoSize::Original).await, Err(Error::ReplicaDamaged { .. })));
    assert_eq!(remote.photos(VOLUME, &[PhotoKey(5)]).await.unwrap(), [Found::Damaged(PhotoKey(5))]);
    remote.append(VOLUME, &[needles(5)], Purpose::Repair).await.unwrap();
    assert_eq!(remote.photos(VOLUME, &[PhotoKey(5)]).await.unwrap(), [Found::Photo(needles(5))]);
    shutdown.begin();
}

#[tokio::test]
async fn another_version_or_a_wrong_token_is_refused_with_a_sentence() {
    let store = Arc::new(local(&SimulatedFileSystem::new()));
    let (address, shutdown) = serve(store, Some("a token of some length")).await;
    for token in [None, Some("another token")] {
        let refused = RemoteStore::new(&address, token).unwrap().report().await.unwrap_err();
        assert!(refused.to_string().contains("the token is missing or is not this store's"), "{refused}");
    }
    let request = "GET /store HTTP/1.1\r\nhost: x\r\nhaystack-protocol: 2\r\nconnection: close\r\n\r\n";
    let answer = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(address.trim_start_matches("http://")).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    assert!(answer.contains("the request is of protocol version 2, and this store speaks 1"), "{answer}");
    shutdown.begin();
}

#[tokio::test]
async fn a_machine_that_is_not_there_is_away() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let store = RemoteStore::new(&address, None).unwrap();
    let error = tokio::time::timeout(Duration::from_secs(30), store.report()).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::StoreAway { .. }), "{error}");
    for bad in ["127.0.0.1:80", "https://a:1", "http://a", "http://a:1/x"] {
        assert!(RemoteStore::new(bad, None).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_large_photo_crosses_the_network() {
    let store = Arc::new(local(&SimulatedFileSystem::new()));
    let (address, shutdown) = serve(store, None).await;
    let remote = RemoteStore::new(&address, None).unwrap();
    remote.create_replica(VOLUME, false).await.unwrap();
    let data = Bytes::from(vec![3; 20 << 20]);
    let (_, media_type, _) = photo(1)[0];
    let large = PhotoNeedles { sizes: vec![(PhotoSize::Original, media_type, data.clone())], ..needles(1) };
    remote.append(VOLUME, &[large], Purpose::Upload).await.unwrap();
    assert_eq!(remote.read(&id(1), PhotoSize::Original).await.unwrap().unwrap().data, data);
    shutdown.begin();
}
