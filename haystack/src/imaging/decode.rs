//! Pixels from bytes, with every limit checked before the first pixel.
//!
//! Only the header is read until the image's dimensions are known to be within
//! bounds. Of an animation the first frame is taken. CMYK becomes RGB, 16 bits
//! become 8, and an alpha channel that hides nothing is dropped.

use std::io::Cursor;

use image::codecs::{gif::GifDecoder, jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, Limits};

use crate::error::{Error, Result};
use crate::media_type::MediaType;

/// Bytes that decoding may take for each pixel allowed: 16 bits in four
/// channels, and as much again for a decoder's own needs.
const BYTES_PER_PIXEL_MAX: u64 = 16;

/// A decoded image, not rotated yet.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Its pixels: 8-bit gray, RGB, or RGBA where something shines through.
    pub pixels: DynamicImage,
    /// How it has to be turned to stand upright.
    pub orientation: Orientation,
    /// Its colour profile, if it has one that fits its pixels.
    pub icc_profile: Option<Vec<u8>>,
}

impl Picture {
    /// Its width and height as it is shown.
    pub fn shown_size(&self) -> (u32, u32) {
        let (width, height) = (self.pixels.width(), self.pixels.height());
        if self.swaps_axes() { (height, width) } else { (width, height) }
    }

    fn swaps_axes(&self) -> bool {
        matches!(
            self.orientation,
            Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH
        )
    }
}

/// Decodes `bytes`, which begin like a `media_type`.
///
/// # Errors
///
/// - [`Error::TooManyPixels`]: nothing was decoded.
/// - [`Error::DamagedImage`]
pub fn decode(bytes: &[u8], media_type: MediaType, pixel_count_max: u64) -> Result<Picture> {
    let format = media_type.name();
    let damaged = |error: ImageError| Error::DamagedImage { format, found: error.to_string() };
    let reader = Cursor::new(bytes);
    match media_type {
        MediaType::Jpeg => decode_with(JpegDecoder::new(reader).map_err(damaged)?, format, pixel_count_max),
        MediaType::Png => {
            let limits = limits(pixel_count_max);
            let decoder = PngDecoder::with_limits(reader, limits).map_err(damaged)?;
            decode_with(decoder, format, pixel_count_max)
        }
        MediaType::Webp => decode_with(WebPDecoder::new(reader).map_err(damaged)?, format, pixel_count_max),
        MediaType::Gif => decode_with(GifDecoder::new(reader).map_err(damaged)?, format, pixel_count_max),
        MediaType::OctetStream => Err(Error::NotAnImage { found: "data of an unknown kind" }),
    }
}

fn limits(pixel_count_max: u64) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(pixel_count_max.saturating_mul(BYTES_PER_PIXEL_MAX));
    limits
}

fn decode_with(
    mut decoder: impl ImageDecoder,
    format: &'static str,
    pixel_count_max: u64,
) -> Result<Picture> {
    let damaged = |error: ImageError| Error::DamagedImage { format, found: error.to_string() };
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(Error::DamagedImage { format, found: "it has no pixels".to_owned() });
    }
    if u64::from(width) * u64::from(height) > pixel_count_max {
        return Err(Error::TooManyPixels { width, height, pixel_count_max });
    }
    decoder.set_limits(limits(pixel_count_max)).map_err(damaged)?;
    // A profile or orientation that cannot be read is as good as none.
    let icc_profile = decoder.icc_profile().ok().flatten();
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let pixels = eight_bits(DynamicImage::from_decoder(decoder).map_err(damaged)?);
    let icc_profile = icc_profile.filter(|profile| profile_fits(profile, &pixels));
    Ok(Picture { pixels, orientation, icc_profile })
}

/// The same image as 8-bit gray, RGB or, where it is not opaque, RGBA.
fn eight_bits(pixels: DynamicImage) -> DynamicImage {
    match pixels {
        DynamicImage::ImageLuma8(_) | DynamicImage::ImageRgb8(_) => pixels,
        DynamicImage::ImageLuma16(_) => DynamicImage::ImageLuma8(pixels.into_luma8()),
        pixels if !pixels.color().has_alpha() => DynamicImage::ImageRgb8(pixels.into_rgb8()),
        pixels => {
            let rgba = pixels.into_rgba8();
            if rgba.pixels().all(|pixel| pixel.0[3] == u8::MAX) {
                DynamicImage::ImageRgb8(DynamicImage::ImageRgba8(rgba).into_rgb8())
            } else {
                DynamicImage::ImageRgba8(rgba)
            }
        }
    }
}

/// Whether an ICC profile describes pixels of this kind: a CMYK profile says
/// nothing of the RGB that the decoder made. (ICC.1:2022, 7.2.6: the colour
/// space's signature stands at byte 16.)
fn profile_fits(profile: &[u8], pixels: &DynamicImage) -> bool {
    let expected: &[u8] = if pixels.color().has_color() { b"RGB " } else { b"GRAY" };
    profile.get(16..20) == Some(expected)
}
