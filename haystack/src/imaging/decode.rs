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
        MediaType::Jpeg if jpeg_breaks_off(bytes) => {
            Err(Error::DamagedImage { format, found: "the file ends in the middle of the image".to_owned() })
        }
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

/// Whether a JPEG file ends before its end marker (ITU T.81, B.1.1.3). The decoder
/// makes the missing part gray, so an upload that broke off would pass for a photo.
/// What is no JPEG structure at all is left to the decoder.
fn jpeg_breaks_off(image: &[u8]) -> bool {
    const END_OF_IMAGE: u8 = 0xd9;
    const START_OF_SCAN: u8 = 0xda;
    let mut rest = &image[image.len().min(2)..];
    loop {
        match *rest {
            [] | [0xff] => return true,
            [0xff, 0xff, ..] => rest = &rest[1..],
            [0xff, END_OF_IMAGE, ..] => return false,
            [0xff, 0x01 | 0xd0..=0xd7, ..] => rest = &rest[2..],
            [0xff, marker, high, low, ..] => {
                let Some(after) = rest.get(2 + usize::from(u16::from_be_bytes([high, low]))..) else {
                    return true;
                };
                rest = after;
                if marker == START_OF_SCAN {
                    let next = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xd0..=0xd7);
                    let Some(coded) = rest.windows(2).position(next) else { return true };
                    rest = &rest[coded..];
                }
            }
            [0xff, ..] => return true,
            _ => return false,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jpeg_cut_anywhere_is_damaged() {
        let pixels: Vec<u8> =
            (0..40 * 30 * 3u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for progressive in [false, true] {
            let mut whole = Vec::new();
            let mut encoder = jpeg_encoder::Encoder::new(&mut whole, 90);
            encoder.set_progressive(progressive);
            encoder.encode(&pixels, 40, 30, jpeg_encoder::ColorType::Rgb).unwrap();
            assert!(decode(&whole, MediaType::Jpeg, 10_000).is_ok());
            for length in 2..whole.len() {
                assert!(jpeg_breaks_off(&whole[..length]), "cut at {length}, progressive: {progressive}");
            }
            whole.extend(b"what a camera appends");
            assert!(decode(&whole, MediaType::Jpeg, 10_000).is_ok());
        }
    }
}
