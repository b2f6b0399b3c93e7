//! The photo door: uploads of a photo of about 16 KB, each decoded, scaled to
//! four sizes and synced before the answer; and reads of originals, beside
//! nginx over files with the same bytes.

use std::net::SocketAddr;

use jpeg_encoder::{ColorType, Encoder};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::http::Connection;
use crate::measure::{self, Worker};
use crate::server::{Hayloft, Peer};
use crate::{Outcome, Plan};

const PHOTO_COUNT: usize = 500;
const PHOTO_BYTES_MAX: usize = 16 << 10;

/// A server, and the paths of its photos.
struct Side {
    address: SocketAddr,
    paths: Vec<String>,
}

pub(crate) async fn compare(hayloft: &Hayloft, plan: &Plan) -> Outcome<()> {
    let photo = photo()?;
    let mut uploader = Upload { connection: Connection::open(hayloft.photos).await?, photo: photo.clone() };
    let mut paths = Vec::new();
    for _ in 0..PHOTO_COUNT {
        paths.push(format!("{}/original", uploader.upload().await?));
    }
    let ours = Side { address: hayloft.photos, paths };

    let mut sides = vec![measure::Side { name: "hayloft", target: &ours, process: Some(&hayloft.process) }];
    let workers = async |side: &&Side| {
        let mut workers = Vec::new();
        for _ in 0..plan.connections {
            workers.push(Upload { connection: Connection::open(side.address).await?, photo: photo.clone() });
        }
        Ok(workers)
    };
    measure::compare("photos/upload-16k", &sides, plan.schedule(), workers).await?.print_ratios();

    let names: Vec<String> = (0..PHOTO_COUNT).map(|number| format!("/{number}.jpg")).collect();
    let peer = Peer::nginx(|root| {
        for name in &names {
            std::fs::write(root.join(name.trim_start_matches('/')), &photo)?;
        }
        Ok(())
    })?;
    let theirs = peer.as_ref().map(|peer| Side { address: peer.address, paths: names });
    for (peer, target) in peer.iter().zip(&theirs) {
        sides.push(measure::Side { name: "nginx", target, process: Some(&peer.process) });
    }
    let workers = async |side: &&Side| {
        let mut workers = Vec::new();
        for seed in 0..u64::from(plan.connections) {
            let connection = Connection::open(side.address).await?;
            let random = SmallRng::seed_from_u64(seed);
            workers.push(Download {
                connection,
                paths: side.paths.clone(),
                photo_bytes: photo.len(),
                random,
            });
        }
        Ok(workers)
    };
    measure::compare("photos/get-16k", &sides, plan.schedule(), workers).await?.print_ratios();
    Ok(())
}

struct Upload {
    connection: Connection,
    photo: Vec<u8>,
}

impl Upload {
    /// Where the photo now is.
    async fn upload(&mut self) -> Outcome<String> {
        let answer = self.connection.post("/photos", "image/jpeg", &self.photo).await?;
        match (answer.status, &answer.location) {
            // A location may be a whole URL or a path.
            (201, Some(location)) => match location.find("/photos/") {
                Some(start) => Ok(location[start..].to_owned()),
                None => Err(format!("the photo went to {location}").into()),
            },
            _ => Err(format!("an upload was answered with {answer:?}").into()),
        }
    }
}

impl Worker for Upload {
    async fn step(&mut self) -> Outcome<u64> {
        self.upload().await.map(|_| 1)
    }
}

struct Download {
    connection: Connection,
    paths: Vec<String>,
    photo_bytes: usize,
    random: SmallRng,
}

impl Worker for Download {
    async fn step(&mut self) -> Outcome<u64> {
        let path = &self.paths[self.random.random_range(0..self.paths.len())];
        let answer = self.connection.get(path).await?;
        if answer.status == 200 && answer.body_bytes == self.photo_bytes {
            Ok(1)
        } else {
            Err(format!("{path} was answered with {answer:?}, not {} bytes", self.photo_bytes).into())
        }
    }
}

/// A JPEG of a gradient with grain, just below 16 KiB.
fn photo() -> Outcome<Vec<u8>> {
    const WIDTH: u16 = 320;
    const HEIGHT: u16 = 240;
    let mut random = SmallRng::seed_from_u64(0);
    let mut pixels = Vec::new();
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let shade = (u32::from(x) * 160 / u32::from(WIDTH)) as u8 + (y / 4) as u8;
            pixels.extend([0, 10, 20].map(|tint| shade.saturating_add(tint + random.random_range(0..12))));
        }
    }
    let mut best = None;
    for quality in 40..=95 {
        let mut photo = Vec::new();
        Encoder::new(&mut photo, quality).encode(&pixels, WIDTH, HEIGHT, ColorType::Rgb)?;
        if photo.len() <= PHOTO_BYTES_MAX {
            best = Some(photo);
        }
    }
    best.ok_or_else(|| "no quality makes the photo small enough".into())
}
