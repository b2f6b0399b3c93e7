//! An album of real photographs: uploads a directory of them, lists the album,
//! and fetches every size back to see that it is what was promised.
//!
//! ```sh
//! cargo run --release -- serve &
//! cargo run --release --example photo_album -- --dir ~/Pictures
//! ```

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use ureq::{Agent, Body, http::Response};
use walkdir::WalkDir;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Bytes of one answer, at most.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Uploads a directory of photographs as an album and verifies every size.
#[derive(Debug, Parser)]
struct Arguments {
    /// The photographs: JPEG, PNG, WebP and GIF files, subdirectories too.
    #[arg(long)]
    dir: PathBuf,
    /// The album that they go into.
    #[arg(long, default_value = "photo_album")]
    album: String,
    /// The photo door.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    server: String,
    /// Uploads and fetches at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    in_flight: u8,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("photo_album: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Outcome<()> {
    let agent: Agent = Agent::config_builder().http_status_as_error(false).build().into();
    let photographs = photographs(&arguments.dir)?;
    let album = percent_encoding::utf8_percent_encode(&arguments.album, percent_encoding::NON_ALPHANUMERIC);

    let started = Instant::now();
    let photos = at_once(arguments.in_flight, "uploading", &photographs, |path| {
        let photograph = std::fs::read(path)?;
        let url = format!("{}/photos?album={album}", arguments.server);
        let answer = json(agent.post(url).content_type("application/octet-stream").send(&photograph[..])?);
        Ok((path.clone(), answer.map_err(|error| format!("{}: {error}", path.display()))?))
    })?;
    let seconds = started.elapsed().as_secs_f64();
    println!("uploaded {} photos, {:.1} photos/s", photos.len(), photos.len() as f64 / seconds);

    let listed = list(&agent, &arguments.server, format!("/albums/{album}?limit=100"))?;
    if let Some((path, _)) = photos.iter().find(|(_, photo)| !listed.contains(&photo["id"])) {
        return Err(format!("{} is not in its album", path.display()).into());
    }
    println!("the album {:?} has {} photos", arguments.album, listed.len());

    let started = Instant::now();
    let untouched = AtomicUsize::new(0);
    let sizes = at_once(arguments.in_flight, "verifying", &photos, |(path, photo)| {
        let sizes = photo["sizes"].as_object().ok_or("the answer names no sizes")?;
        for (name, size) in sizes {
            let data = fetch(&agent, &arguments.server, size).map_err(|error| format!("{name}: {error}"))?;
            let equal = name == "original" && data == std::fs::read(path)?;
            untouched.fetch_add(usize::from(equal), Ordering::Relaxed);
        }
        Ok(sizes.len())
    })?;
    let (count, seconds) = (sizes.iter().sum::<usize>(), started.elapsed().as_secs_f64());
    println!("fetched and decoded {count} sizes, {:.1} sizes/s", count as f64 / seconds);
    let untouched = untouched.into_inner();
    println!(
        "{untouched} originals equal their files; {} lost where they were taken",
        photos.len() - untouched
    );
    Ok(())
}

/// The files below `dir` that are named like photographs.
fn photographs(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let entries = WalkDir::new(dir).sort_by_file_name().into_iter().collect::<Result<Vec<_>, _>>()?;
    let extensions = ["jpg", "jpeg", "png", "webp", "gif"];
    let is_photograph = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
        extension.is_some_and(|extension| extensions.contains(&&*extension)) && path.is_file()
    };
    let found: Vec<_> = entries.into_iter().map(walkdir::DirEntry::into_path).filter(is_photograph).collect();
    if found.is_empty() {
        return Err(format!("there is no JPEG, PNG, WebP or GIF file below {}", dir.display()).into());
    }
    Ok(found)
}

/// Fetches a size and checks its length and its dimensions, which the decoder
/// tells as the file has them: an original may lie on its side.
fn fetch(agent: &Agent, server: &str, size: &Value) -> Outcome<Vec<u8>> {
    let url = size["url"].as_str().ok_or("the answer names no URL")?;
    let mut answer = agent.get(format!("{server}{url}")).call()?;
    if answer.status() != 200 {
        return Err(format!("{url} answers {}", answer.status()).into());
    }
    let data = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
    let image = image::load_from_memory(&data).map_err(|error| format!("{url}: {error}"))?;
    let mut found = [image.width(), image.height()].map(u64::from);
    let mut promised = [size["width"].as_u64(), size["height"].as_u64()].map(Option::unwrap_or_default);
    if url.ends_with("/original") {
        found.sort_unstable();
        promised.sort_unstable();
    }
    if found != promised || size["bytes"] != data.len() {
        return Err(format!("{url} is {found:?} in {} bytes, and was promised {size}", data.len()).into());
    }
    Ok(data)
}

/// The ids of an album's photos, page after page.
fn list(agent: &Agent, server: &str, first: String) -> Outcome<Vec<Value>> {
    let (mut ids, mut next) = (Vec::new(), Some(first));
    while let Some(path) = next {
        let page = json(agent.get(format!("{server}{path}")).call()?)?;
        ids.extend(page["photos"].as_array().into_iter().flatten().map(|photo| photo["id"].clone()));
        next = page["next"].as_str().map(str::to_owned);
    }
    Ok(ids)
}

fn json(mut answer: Response<Body>) -> Outcome<Value> {
    let content: Value = serde_json::from_slice(&answer.body_mut().read_to_vec()?)?;
    if !answer.status().is_success() {
        return Err(format!("{}: {}", answer.status(), content["message"]).into());
    }
    Ok(content)
}

/// Does `work` on each of `items`, several at once, under a progress bar, and
/// gives the results in the order of the items.
fn at_once<T: Sync, R: Send>(
    in_flight: u8,
    verb: &'static str,
    items: &[T],
    work: impl Fn(&T) -> Outcome<R> + Sync,
) -> Outcome<Vec<R>> {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}  {per_sec}  {eta}")?;
    let bar = ProgressBar::new(items.len() as u64).with_style(style).with_message(verb);
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        while let place = next.fetch_add(1, Ordering::Relaxed)
            && let Some(item) = items.get(place)
        {
            done.push((place, work(item)?));
            bar.inc(1);
        }
        Ok(done)
    };
    let outcomes: Vec<Outcome<Vec<(usize, R)>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..in_flight).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    bar.finish_and_clear();
    let mut done: Vec<(usize, R)> = Vec::with_capacity(items.len());
    for outcome in outcomes {
        done.extend(outcome?);
    }
    done.sort_unstable_by_key(|(place, _)| *place);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}
