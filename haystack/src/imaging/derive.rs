//! The derived sizes: large, medium, small and thumb.
//!
//! Each fits a square of its longest edge and is never larger than the
//! original. The large one is made from the original and turned upright; each
//! following one is made from the one before, which costs a tenth and cannot be
//! told apart (Lanczos3 throughout). Opaque pictures become JPEG, which every
//! client shows; where something shines through they become PNG. Nothing of the
//! original's metadata is carried over but its colour profile.

use bytes::Bytes;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3, U8x4};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use image::codecs::png::PngEncoder;
use image::{DynamicImage, GrayImage, ImageEncoder, RgbImage, RgbaImage};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::decode::Picture;
use super::{ImagingOptions, Rendition};
use crate::error::{Error, Result};
use crate::media_type::MediaType;
use crate::photo_id::PhotoSize;

/// Appends the derived sizes of `picture` to `renditions`, largest first.
///
/// # Errors
///
/// [`Error::DamagedImage`] if an encoder refuses the picture.
pub fn derive(picture: Picture, options: &ImagingOptions, renditions: &mut Vec<Rendition>) -> Result<()> {
    let Picture { mut pixels, orientation, icc_profile } = picture;
    let mut resizer = Resizer::new();
    let mut last: Option<Rendition> = None;
    for (size, edge) in PhotoSize::DERIVED.into_iter().zip(options.derived_edges_px) {
        let (width, height) = fit(pixels.width(), pixels.height(), edge);
        let rendition = match last {
            Some(last) if (width, height) == (pixels.width(), pixels.height()) => Rendition { size, ..last },
            _ => {
                if (width, height) != (pixels.width(), pixels.height()) {
                    pixels = resize(&mut resizer, &pixels, width, height)?;
                }
                if size == PhotoSize::Large {
                    pixels.apply_orientation(orientation);
                }
                let (media_type, data) = encode(&pixels, icc_profile.as_deref(), options.jpeg_quality)?;
                Rendition { size, width: pixels.width(), height: pixels.height(), media_type, data }
            }
        };
        renditions.push(rendition.clone());
        last = Some(rendition);
    }
    Ok(())
}

/// `width` x `height` made to fit a square of `edge`, never enlarged, never empty.
fn fit(width: u32, height: u32, edge: u32) -> (u32, u32) {
    let longest = width.max(height);
    if longest <= edge {
        return (width, height);
    }
    let scale = |length: u32| {
        let scaled = (u64::from(length) * u64::from(edge) + u64::from(longest) / 2) / u64::from(longest);
        u32::try_from(scaled).expect("shorter than before").max(1)
    };
    (scale(width), scale(height))
}

pub(super) fn resize(
    resizer: &mut Resizer,
    pixels: &DynamicImage,
    width: u32,
    height: u32,
) -> Result<DynamicImage> {
    let resized = match pixels {
        DynamicImage::ImageLuma8(_) => resized_bytes::<U8>(resizer, pixels, width, height)
            .map(|bytes| GrayImage::from_raw(width, height, bytes).map(DynamicImage::ImageLuma8)),
        DynamicImage::ImageRgba8(_) => resized_bytes::<U8x4>(resizer, pixels, width, height)
            .map(|bytes| RgbaImage::from_raw(width, height, bytes).map(DynamicImage::ImageRgba8)),
        _ => resized_bytes::<U8x3>(resizer, pixels, width, height)
            .map(|bytes| RgbImage::from_raw(width, height, bytes).map(DynamicImage::ImageRgb8)),
    };
    resized?.ok_or_else(|| unencodable(&"the resized image has another length"))
}

/// Resizes pixels of the layout `P`. The resizer compiles its convolutions anew
/// for each layout that it is called with: three here, not its thirteen.
fn resized_bytes<P: PixelTrait>(
    resizer: &mut Resizer,
    pixels: &DynamicImage,
    width: u32,
    height: u32,
) -> Result<Vec<u8>> {
    let from = TypedImageRef::<P>::from_buffer(pixels.width(), pixels.height(), pixels.as_bytes())
        .map_err(|error| unencodable(&error))?;
    let mut bytes = vec![0; width as usize * height as usize * P::size()];
    let mut to =
        TypedImage::<P>::from_buffer(width, height, &mut bytes).map_err(|error| unencodable(&error))?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    resizer.resize_typed(&from, &mut to, &options).map_err(|error| unencodable(&error))?;
    Ok(bytes)
}

pub(super) fn encode(
    pixels: &DynamicImage,
    icc_profile: Option<&[u8]>,
    quality: u8,
) -> Result<(MediaType, Bytes)> {
    let mut data = Vec::with_capacity(pixels.as_bytes().len() / 8);
    if let DynamicImage::ImageRgba8(rgba) = pixels {
        let mut encoder = PngEncoder::new(&mut data);
        if let Some(profile) = icc_profile {
            encoder.set_icc_profile(profile.to_vec()).map_err(|error| unencodable(&error))?;
        }
        let (width, height) = rgba.dimensions();
        encoder
            .write_image(rgba, width, height, image::ExtendedColorType::Rgba8)
            .map_err(|error| unencodable(&error))?;
        return Ok((MediaType::Png, data.into()));
    }
    let mut encoder = Encoder::new(&mut data, quality);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    if let Some(profile) = icc_profile {
        encoder.add_icc_profile(profile).map_err(|error| unencodable(&error))?;
    }
    let color = if pixels.color().has_color() { ColorType::Rgb } else { ColorType::Luma };
    let edge = |length: u32| u16::try_from(length).map_err(|error| unencodable(&error));
    let (width, height) = (edge(pixels.width())?, edge(pixels.height())?);
    encoder.encode(pixels.as_bytes(), width, height, color).map_err(|error| unencodable(&error))?;
    Ok((MediaType::Jpeg, data.into()))
}

pub(super) fn unencodable(error: &dyn std::fmt::Display) -> Error {
    Error::DamagedImage { format: "decoded", found: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_fit_their_edge_and_are_never_enlarged() {
        assert_eq!(fit(4000, 3000, 2048), (2048, 1536));
        assert_eq!(fit(3000, 4000, 160), (120, 160));
        assert_eq!(fit(100, 50, 160), (100, 50));
        assert_eq!(fit(10_000, 1, 160), (160, 1));
    }
}
