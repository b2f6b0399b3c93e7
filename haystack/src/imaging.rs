//! From an upload to the sizes of a photo, within bounds of CPU and memory.
//!
//! Read on in this order:
//!
//! - [`sniff`]: what the bytes are, by their first few.
//! - [`decode`]: limits first, then pixels.
//! - [`derive`](mod@derive): the four sizes.
//! - [`variant`]: other sizes, cuts and formats, which URLs ask for.
//! - [`location`]: where a photo was taken, out of the original.
//!
//! Image work blocks for a tenth of a second and more, so it never runs on the
//! threads that serve connections: [`Imaging`] admits a bounded number of photos
//! to as many threads as it was given, and turns the rest away.

pub mod decode;
pub mod derive;
pub mod location;
pub mod sniff;
pub mod variant;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;

use self::variant::Variant;
use crate::error::{Error, Result};
use crate::media_type::MediaType;
use crate::photo_id::PhotoSize;

/// What image work is bound by and aims at.
#[derive(Clone, Copy, Debug)]
pub struct ImagingOptions {
    /// Pixels of the largest image that is decoded.
    pub pixel_count_max: u64,
    /// Longest edges of the derived sizes, largest first, pixels.
    pub derived_edges_px: [u32; PhotoSize::DERIVED.len()],
    /// Quality of derived JPEG images, 1 to 100.
    pub jpeg_quality: u8,
    /// Keeps where the photo was taken in its original.
    pub originals_untouched: bool,
    /// Photos worked on at once.
    pub thread_count: usize,
    /// Photos that wait for a thread.
    pub queue_max: usize,
}

/// One size of a photo.
#[derive(Clone, Debug)]
pub struct Rendition {
    /// Which size.
    pub size: PhotoSize,
    /// Pixels across, as it is shown.
    pub width: u32,
    /// Pixels down, as it is shown.
    pub height: u32,
    /// Its format.
    pub media_type: MediaType,
    /// Its bytes.
    pub data: Bytes,
}

/// Image work, bounded. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Imaging {
    options: ImagingOptions,
    /// Places for photos that wait or are worked on.
    places: Arc<Semaphore>,
    threads: Arc<Semaphore>,
}

impl Imaging {
    /// Image work within `options`.
    pub fn new(options: ImagingOptions) -> Self {
        Self {
            options,
            places: Arc::new(Semaphore::new(options.thread_count + options.queue_max)),
            threads: Arc::new(Semaphore::new(options.thread_count)),
        }
    }

    /// The original and the derived sizes of the image in `upload`, largest
    /// first. A derived size that would equal the one before shares its bytes.
    ///
    /// # Errors
    ///
    /// - [`Error::Busy`]: too many photos wait.
    /// - [`Error::NotAnImage`], [`Error::TooManyPixels`], [`Error::DamagedImage`]
    pub async fn renditions(&self, upload: Bytes) -> Result<Vec<Rendition>> {
        let options = self.options;
        self.run(move || render(&upload, &options)).await
    }

    /// `variant` of the derived size in `source`.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`], and those of [`Variant::render`].
    pub async fn variant(
        &self,
        variant: Variant,
        media_type: MediaType,
        source: Bytes,
    ) -> Result<(MediaType, Bytes)> {
        let quality = self.options.jpeg_quality;
        self.run(move || variant.render(&source, media_type, quality)).await
    }

    /// Runs `work` on a thread of the pool. It keeps its place there until it ends,
    /// also where nobody waits for it any more.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let busy = || Error::Busy { what: "photos", retry_after: Duration::from_secs(1) };
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| busy())?;
        let thread = Arc::clone(&self.threads).acquire_owned().await.map_err(|_| Error::Closing)?;
        let started = Instant::now();
        let work = tokio::task::spawn_blocking(move || {
            let _held = (place, thread);
            work()
        });
        let rendered = work.await.unwrap_or_else(|panic| {
            // A decoder met bytes that its authors did not think of.
            tracing::error!(%panic, "an image made its decoder panic");
            Err(Error::DamagedImage { format: "uploaded", found: "its decoder failed".to_owned() })
        });
        metrics::histogram!("hayloft_haystack_imaging_seconds").record(started.elapsed().as_secs_f64());
        rendered
    }
}

/// Does the work of [`Imaging::renditions`] on this thread.
///
/// # Errors
///
/// As there, but never [`Error::Busy`].
pub fn render(upload: &Bytes, options: &ImagingOptions) -> Result<Vec<Rendition>> {
    let media_type = sniff::image_type(upload)?;
    let picture = decode::decode(upload, media_type, options.pixel_count_max)?;
    let (width, height) = picture.shown_size();
    let data = match options.originals_untouched {
        true => upload.clone(),
        false => location::without_location(media_type, upload).map_or_else(|| upload.clone(), Bytes::from),
    };
    let mut renditions = vec![Rendition { size: PhotoSize::Original, width, height, media_type, data }];
    derive::derive(picture, options, &mut renditions)?;
    Ok(renditions)
}
