//! Logical volumes over simulated stores, whose failures and whose time the test decides.

mod faults;
mod simulated_store;
mod world;

use std::time::Duration;

use simulated_store::Fault;
use world::{World, photo};

use crate::error::Error;
use crate::photo_id::{Cookie, PhotoId, PhotoSize, VolumeId};
use crate::store::Deleted;

#[tokio::test(start_paused = true)]
async fn a_photo_is_on_every_replica_before_it_is_acknowledged() {
    let world = World::new(3, 2).await;
    let id = world.volumes.append(&photo(1)).await.unwrap();
    let having = world.stores.iter().filter(|store| store.has(id.volume, id.key)).count();
    assert_eq!(having, 2);
    for store in &world.stores {
        store.set_fault(Fault::Down);
        let read = world.volumes.read(&id, PhotoSize::Original).await;
        assert_eq!(read.unwrap().unwrap().data, photo(1)[0].2);
        store.set_fault(Fault::None);
    }
    let guessed = PhotoId { cookie: Cookie(id.cookie.0 ^ 1), ..id };
    assert!(world.volumes.read(&guessed, PhotoSize::Original).await.unwrap().is_none());
    let elsewhere = PhotoId { volume: VolumeId(99), ..id };
    assert!(world.volumes.read(&elsewhere, PhotoSize::Original).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn replicas_stand_in_different_racks() {
    let world = World::with_racks(&["a", "a", "b"], 2).await;
    for seed in 0..4 {
        let id = world.volumes.append(&photo(seed)).await.unwrap();
        assert!(world.stores[2].has(id.volume, id.key), "rack b has one of two");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_goes_to_another_volume_and_leaves_no_trace() {
    for fault in [Fault::Down, Fault::Silent, Fault::DoneButFailed, Fault::Poisoned] {
        let mut world = World::new(3, 2).await;
        let first = world.volumes.append(&photo(1)).await.unwrap();
        let ill = world.stores.iter().position(|store| store.has(first.volume, first.key)).unwrap();
        world.stores[ill].set_fault(fault);
        let second = world.volumes.append(&photo(2)).await.unwrap();
        assert_ne!(second.volume, first.volume, "{fault:?}");
        let status = world.volumes.status();
        let volume = status.volumes.iter().find(|volume| volume.volume == first.volume).unwrap();
        assert!(!volume.writable && volume.reason.is_some(), "{fault:?}");
        world.stores[ill].set_fault(Fault::None);
        world.converge().await;
        for store in world.stores.iter().filter(|store| store.holds(first.volume)) {
            assert_eq!(
                store.live_keys(first.volume),
                [first.key],
                "{fault:?}: what was written of the second is gone"
            );
        }
        let status = world.volumes.status();
        assert!(status.volumes.iter().all(|volume| volume.debt_count == 0), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_takes_photos_again_when_its_failed_write_is_settled() {
    let mut world = World::new(2, 2).await;
    let first = world.volumes.append(&photo(1)).await.unwrap();
    world.stores[0].set_fault(Fault::DoneButFailed);
    assert!(matches!(
        world.volumes.append(&photo(2)).await,
        Err(Error::TooFewStores { .. } | Error::StoreAway { .. })
    ));
    world.stores[0].set_fault(Fault::None);
    world.converge().await;
    let third = world.volumes.append(&photo(3)).await.unwrap();
    assert_eq!(third.volume, first.volume);
}

#[tokio::test(start_paused = true)]
async fn uploads_are_refused_while_too_few_stores_are_well_and_reads_go_on() {
    let mut world = World::new(3, 3).await;
    let id = world.volumes.append(&photo(1)).await.unwrap();
    world.stores[0].set_fault(Fault::Down);
    world.stores[1].set_fault(Fault::Silent);
    world.tick().await;
    let refused = world.volumes.append(&photo(2)).await;
    assert!(matches!(refused, Err(Error::TooFewStores { well_count: 1, replica_count: 3 })), "{refused:?}");
    assert!(world.volumes.read(&id, PhotoSize::Original).await.unwrap().is_some());
    assert_eq!(world.volumes.delete(&id).await.unwrap(), Deleted::Now);
    assert!(world.volumes.read(&id, PhotoSize::Original).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_as_such() {
    let mut world = World::new(3, 3).await;
    world.volumes.append(&photo(1)).await.unwrap();
    world.stores[1].set_fault(Fault::Full);
    world.tick().await;
    let refused = world.volumes.append(&photo(2)).await;
    assert!(matches!(refused, Err(Error::DiskFull { .. })), "{refused:?}");
    world.stores[1].set_fault(Fault::None);
    world.tick().await;
    world.volumes.append(&photo(3)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_costs_a_reader_the_hedge_and_no_more() {
    let world = World::new(2, 2).await;
    let id = world.volumes.append(&photo(1)).await.unwrap();
    world.stores[0].set_fault(Fault::Silent);
    for _ in 0..4 {
        let started = tokio::time::Instant::now();
        assert!(world.volumes.read(&id, PhotoSize::Thumb).await.unwrap().is_some());
        assert!(started.elapsed() <= Duration::from_millis(100));
    }
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_a_store_missed_reaches_it_when_it_is_back() {
    let mut world = World::new(3, 3).await;
    let id = world.volumes.append(&photo(1)).await.unwrap();
    world.stores[2].set_fault(Fault::Down);
    assert_eq!(world.volumes.delete(&id).await.unwrap(), Deleted::Now);
    // Only the store that missed it answers now, to a coordinator that was begun anew.
    world.restart().await;
    world.stores[2].set_fault(Fault::None);
    world.stores[0].set_fault(Fault::Down);
    world.stores[1].set_fault(Fault::Down);
    world.probe().await;
    assert!(world.volumes.read(&id, PhotoSize::Original).await.unwrap().is_none());
    assert!(world.stores[2].has(id.volume, id.key), "it has it still");
    world.converge().await;
    assert!(!world.stores[2].has(id.volume, id.key));
    assert_eq!(world.volumes.delete(&id).await.unwrap(), Deleted::Absent);
}

#[tokio::test(start_paused = true)]
async fn a_delete_with_another_cookie_deletes_nothing() {
    let world = World::new(3, 3).await;
    let id = world.volumes.append(&photo(1)).await.unwrap();
    let guessed = PhotoId { cookie: Cookie(id.cookie.0 ^ 1), ..id };
    assert_eq!(world.volumes.delete(&guessed).await.unwrap(), Deleted::WrongCookie);
    assert!(world.volumes.read(&id, PhotoSize::Original).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_wiped_store_is_filled_again_and_deletes_meanwhile_are_kept() {
    let mut world = World::new(3, 3).await;
    let mut ids = Vec::new();
    for seed in 0..40 {
        ids.push(world.volumes.append(&photo(seed)).await.unwrap());
    }
    world.stores[1].wipe();
    world.probe().await;
    world.stores[1].fail_after(8);
    world.tick().await;
    assert!(world.stores[1].live_keys(ids[0].volume).len() < 40, "the fill broke off");
    assert_eq!(world.volumes.delete(&ids[3]).await.unwrap(), Deleted::Now);
    assert_eq!(world.volumes.delete(&ids[39]).await.unwrap(), Deleted::Now);
    world.stores[1].set_fault(Fault::None);
    world.restart().await;
    world.converge().await;
    assert_eq!(world.stores[1].live_keys(ids[0].volume), world.stores[0].live_keys(ids[0].volume));
    assert_eq!(world.stores[1].live_keys(ids[0].volume).len(), 38);
    let status = world.volumes.status();
    assert!(status.volumes.iter().all(|volume| volume.writable), "{status:?}");
    assert!(!status.finished_refills.is_empty());
}

#[tokio::test(start_paused = true)]
async fn replicas_of_a_store_that_stays_away_are_made_elsewhere_and_its_own_removed_later() {
    let mut world = World::new(3, 2).await;
    let id = world.volumes.append(&photo(1)).await.unwrap();
    let gone = world.stores.iter().position(|store| store.has(id.volume, id.key)).unwrap();
    world.stores[gone].set_fault(Fault::Down);
    world.converge().await;
    let having = |world: &World| world.stores.iter().filter(|store| store.has(id.volume, id.key)).count();
    assert_eq!(having(&world), 2, "not before its time");
    tokio::time::advance(Duration::from_secs(700)).await;
    world.converge().await;
    assert_eq!(having(&world), 3);
    world.stores[gone].set_fault(Fault::None);
    world.converge().await;
    assert_eq!(having(&world), 2);
    assert!(!world.stores[gone].holds(id.volume));
    assert!(world.volumes.read(&id, PhotoSize::Original).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_photo_is_read_elsewhere_and_repaired() {
    let mut world = World::new(2, 2).await;
    let id = world.volumes.append(&photo(1)).await.unwrap();
    world.stores[0].damage(id.volume, id.key);
    for _ in 0..2 {
        assert!(world.volumes.read(&id, PhotoSize::Original).await.unwrap().is_some());
    }
    world.converge().await;
    assert!(!world.stores[0].is_damaged(id.volume, id.key));
    assert_eq!(world.volumes.status().repaired_count, 1);
}

#[tokio::test(start_paused = true)]
async fn a_photo_that_is_damaged_everywhere_is_reported() {
    let mut world = World::new(2, 2).await;
    let id = world.volumes.append(&photo(1)).await.unwrap();
    world.stores.iter().for_each(|store| store.damage(id.volume, id.key));
    let read = world.volumes.read(&id, PhotoSize::Original).await;
    assert!(matches!(read, Err(Error::ReplicaDamaged { .. })), "{read:?}");
    world.converge().await;
    assert_eq!(world.volumes.status().volumes[0].unrepaired.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn volumes_of_a_directory_that_was_lost_are_taken_in_again() {
    let mut world = World::new(3, 3).await;
    let id = world.volumes.append(&photo(1)).await.unwrap();
    world.ledger.lose_all();
    world.restart().await;
    world.converge().await;
    assert!(world.volumes.read(&id, PhotoSize::Original).await.unwrap().is_some());
    let later = world.volumes.append(&photo(2)).await.unwrap();
    assert!(later.key > id.key);
}

#[tokio::test(start_paused = true)]
async fn operators_keep_photos_from_volumes_and_stores_also_after_a_restart() {
    let mut world = World::new(3, 2).await;
    let first = world.volumes.append(&photo(1)).await.unwrap();
    world.volumes.set_volume_read_only(first.volume, true).await.unwrap();
    world.restart().await;
    let second = world.volumes.append(&photo(2)).await.unwrap();
    assert_ne!(second.volume, first.volume);
    assert!(world.volumes.set_store_read_only("store-0", true).await.unwrap());
    assert!(!world.volumes.set_store_read_only("store-9", true).await.unwrap());
    world.restart().await;
    for seed in 3..6 {
        let id = world.volumes.append(&photo(seed)).await.unwrap();
        assert!(!world.stores[0].has(id.volume, id.key));
    }
    assert!(world.volumes.set_store_read_only("store-0", false).await.unwrap());
    world.volumes.set_volume_read_only(first.volume, false).await.unwrap();
    assert!(world.volumes.status().volumes.iter().all(|volume| volume.writable));
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_has_its_size_is_sealed_on_every_replica() {
    let world = World::new(2, 2).await;
    world.stores.iter().for_each(|store| store.set_volume_photo_count_max(3));
    let mut volumes = std::collections::BTreeSet::new();
    for seed in 0..7 {
        volumes.insert(world.volumes.append(&photo(seed)).await.unwrap().volume);
    }
    assert_eq!(volumes.len(), 3);
}
