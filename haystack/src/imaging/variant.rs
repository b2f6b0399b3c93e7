//! Variants: a photo in the size, cut and format that a URL asks for.
//!
//! | parameter | value                                             |
//! |-----------|---------------------------------------------------|
//! | `w`, `h`  | 1 to 4096 pixels; one of them may be left out     |
//! | `fit`     | `contain` (the default) or `cover`, which cuts where both edges are given |
//! | `fm`      | `jpeg`, `png`, `webp`; `auto`: WebP where it is accepted and smaller than PNG |
//! | `q`       | 1 to 100, of JPEG                                 |
//!
//! A variant is made of the smallest derived size that is surely large enough, so
//! that decoding costs no more than the large one, and is never enlarged. WebP is
//! lossless here, which is smaller than PNG and much larger than JPEG; so `auto`
//! takes it only for pictures that something shines through.

use std::fmt;

use bytes::Bytes;
use fast_image_resize::Resizer;
use image::codecs::webp::WebPEncoder;
use image::{DynamicImage, ImageEncoder};

use super::decode::{Picture, decode};
use super::derive::{encode, resize, unencodable};
use crate::error::Result;
use crate::media_type::MediaType;
use crate::photo_id::PhotoSize;

/// Pixels of a variant's edge.
pub const EDGE_PX_MAX: u32 = 4096;

/// How a picture is brought into a rectangle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fit {
    /// All of it, within the rectangle.
    Contain,
    /// The middle of it, filling the rectangle.
    Cover,
}

/// What a variant is encoded as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// JPEG; PNG where something shines through.
    Plain,
    /// WebP for whoever accepts it, where it pays; otherwise as plain.
    Auto,
    /// JPEG, on white where something shines through.
    Jpeg,
    /// PNG.
    Png,
    /// WebP, lossless.
    Webp,
}

/// What a URL asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    width: Option<u32>,
    height: Option<u32>,
    fit: Fit,
    format: Format,
    quality: Option<u8>,
}

/// A parameter that no variant has: its name, and what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {range}")]
pub struct BadVariant {
    name: &'static str,
    range: &'static str,
}

impl Variant {
    /// The variant that `query` asks for; none if it asks for none.
    ///
    /// # Errors
    ///
    /// The first parameter that is out of range.
    pub fn parse(query: &str) -> std::result::Result<Option<Self>, BadVariant> {
        let mut variant =
            Self { width: None, height: None, fit: Fit::Contain, format: Format::Plain, quality: None };
        let mut asked = false;
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let edge = |name| match value.parse() {
                Ok(edge @ 1..=EDGE_PX_MAX) => Ok(Some(edge)),
                _ => Err(BadVariant { name, range: "1 to 4096" }),
            };
            match name {
                "w" => variant.width = edge("w")?,
                "h" => variant.height = edge("h")?,
                "fit" => {
                    variant.fit = match value {
                        "contain" => Fit::Contain,
                        "cover" => Fit::Cover,
                        _ => return Err(BadVariant { name: "fit", range: "contain or cover" }),
                    }
                }
                "fm" => {
                    variant.format = match value {
                        "auto" => Format::Auto,
                        "jpeg" | "jpg" => Format::Jpeg,
                        "png" => Format::Png,
                        "webp" => Format::Webp,
                        _ => return Err(BadVariant { name: "fm", range: "auto, jpeg, png or webp" }),
                    }
                }
                "q" => match value.parse() {
                    Ok(quality @ 1..=100) => variant.quality = Some(quality),
                    _ => return Err(BadVariant { name: "q", range: "1 to 100" }),
                },
                _ => continue,
            }
            asked = true;
        }
        Ok(asked.then_some(variant))
    }

    /// Whether what is served depends on what the client accepts.
    pub fn negotiates(&self) -> bool {
        self.format == Format::Auto
    }

    /// The variant for a client that accepts WebP, or not.
    pub fn negotiated(self, accepts_webp: bool) -> Self {
        match self.format {
            Format::Auto if !accepts_webp => Self { format: Format::Plain, ..self },
            _ => self,
        }
    }

    /// The derived size that it is made of, where the longest edges are `edges_px`.
    pub fn source(&self, edges_px: [u32; PhotoSize::DERIVED.len()]) -> PhotoSize {
        // Any other bound may be on the shorter edge, which a smaller size would undercut.
        let (Some(width), Some(height), Fit::Contain) = (self.width, self.height, self.fit) else {
            return PhotoSize::Large;
        };
        let mut sizes = PhotoSize::DERIVED.into_iter().zip(edges_px).rev();
        let enough = sizes.find(|&(_, edge_px)| edge_px >= width.max(height));
        enough.map_or(PhotoSize::Large, |(size, _)| size)
    }

    /// The variant of the derived size in `source`.
    ///
    /// # Errors
    ///
    /// [`DamagedImage`](crate::Error::DamagedImage), [`TooManyPixels`](crate::Error::TooManyPixels):
    /// it is not what was derived.
    pub fn render(&self, source: &[u8], media_type: MediaType, quality: u8) -> Result<(MediaType, Bytes)> {
        let limit = u64::from(EDGE_PX_MAX) * u64::from(EDGE_PX_MAX) * 4;
        let Picture { pixels, icc_profile, .. } = decode(source, media_type, limit)?;
        let pixels = self.bring_into_shape(pixels)?;
        let shines_through = pixels.color().has_alpha();
        let quality = self.quality.unwrap_or(quality);
        match self.format {
            Format::Webp => webp(pixels, icc_profile),
            Format::Auto if shines_through => webp(pixels, icc_profile),
            Format::Jpeg if shines_through => encode(&on_white(&pixels), icc_profile.as_deref(), quality),
            Format::Png if !shines_through => {
                let icc_profile = icc_profile.filter(|_| pixels.color().has_color());
                let rgba = DynamicImage::ImageRgba8(pixels.into_rgba8());
                encode(&rgba, icc_profile.as_deref(), quality)
            }
            _ => encode(&pixels, icc_profile.as_deref(), quality),
        }
    }

    fn bring_into_shape(&self, pixels: DynamicImage) -> Result<DynamicImage> {
        let (width, height) = (pixels.width(), pixels.height());
        let (target, cut) = match (self.fit, self.width, self.height) {
            (Fit::Cover, Some(w), Some(h)) => {
                let (w, h) = shrink_into(w, h, width, height);
                (cover(width, height, w, h), Some((w, h)))
            }
            (_, w, h) => (contain(width, height, w, h), None),
        };
        let scaled = match target == (width, height) {
            true => pixels,
            false => resize(&mut Resizer::new(), &pixels, target.0, target.1)?,
        };
        let Some((w, h)) = cut else { return Ok(scaled) };
        Ok(scaled.crop_imm((scaled.width() - w) / 2, (scaled.height() - h) / 2, w, h))
    }
}

impl fmt::Display for Variant {
    /// The variant's one name: what lists of variants are compared by.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let mut part = |f: &mut fmt::Formatter<'_>, name: &str, value: &dyn fmt::Display| {
            let written = write!(f, "{separator}{name}={value}");
            separator = "&";
            written
        };
        self.width.map_or(Ok(()), |width| part(f, "w", &width))?;
        self.height.map_or(Ok(()), |height| part(f, "h", &height))?;
        if self.fit == Fit::Cover {
            part(f, "fit", &"cover")?;
        }
        let format = match self.format {
            Format::Plain => None,
            Format::Auto => Some("auto"),
            Format::Jpeg => Some("jpeg"),
            Format::Png => Some("png"),
            Format::Webp => Some("webp"),
        };
        format.map_or(Ok(()), |format| part(f, "fm", &format))?;
        self.quality.map_or(Ok(()), |quality| part(f, "q", &quality))
    }
}

/// The rectangle `w` x `h`, made smaller in its own shape until a picture of
/// `width` x `height` can fill it without being enlarged.
fn shrink_into(w: u32, h: u32, width: u32, height: u32) -> (u32, u32) {
    if w <= width && h <= height {
        return (w, h);
    }
    contain(w, h, Some(width), Some(height))
}

/// `width` x `height` within the bounds that are given; never enlarged or empty.
fn contain(width: u32, height: u32, w: Option<u32>, h: Option<u32>) -> (u32, u32) {
    let scaled = |length: u32, to: u32, from: u32| {
        let scaled = (u64::from(length) * u64::from(to) + u64::from(from) / 2) / u64::from(from);
        u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
    };
    let (mut size, bounds) = ((width, height), (w.unwrap_or(u32::MAX), h.unwrap_or(u32::MAX)));
    if size.0 > bounds.0 {
        size = (bounds.0, scaled(height, bounds.0, width));
    }
    if size.1 > bounds.1 {
        size = (scaled(width, bounds.1, height).min(bounds.0), bounds.1);
    }
    size
}

/// The smallest size in the shape of `width` x `height` that covers `w` x `h`.
fn cover(width: u32, height: u32, w: u32, h: u32) -> (u32, u32) {
    let scaled = |length: u32, to: u32, from: u32| {
        let scaled = (u64::from(length) * u64::from(to)).div_ceil(u64::from(from));
        u32::try_from(scaled).unwrap_or(u32::MAX)
    };
    let by_width = (w, scaled(height, w, width));
    if by_width.1 >= h { by_width } else { (scaled(width, h, height), h) }
}

fn on_white(pixels: &DynamicImage) -> DynamicImage {
    let mut rgba = pixels.to_rgba8();
    for pixel in rgba.pixels_mut() {
        let [red, green, blue, alpha] = pixel.0.map(u32::from);
        let blend = |level: u32| u8::try_from((level * alpha + 255 * (255 - alpha)) / 255).unwrap_or(255);
        pixel.0 = [blend(red), blend(green), blend(blue), 255];
    }
    DynamicImage::ImageRgb8(DynamicImage::ImageRgba8(rgba).into_rgb8())
}

fn webp(pixels: DynamicImage, icc_profile: Option<Vec<u8>>) -> Result<(MediaType, Bytes)> {
    // A profile of gray does not fit the colours that gray becomes.
    let icc_profile = icc_profile.filter(|_| pixels.color().has_color());
    let pixels = match pixels {
        DynamicImage::ImageRgba8(_) => pixels,
        other => DynamicImage::ImageRgb8(other.into_rgb8()),
    };
    let mut data = Vec::new();
    let mut encoder = WebPEncoder::new_lossless(&mut data);
    if let Some(profile) = icc_profile {
        encoder.set_icc_profile(profile).map_err(|error| unencodable(&error))?;
    }
    encoder
        .write_image(pixels.as_bytes(), pixels.width(), pixels.height(), pixels.color().into())
        .map_err(|error| unencodable(&error))?;
    Ok((MediaType::Webp, data.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(query: &str) -> Variant {
        Variant::parse(query).unwrap().expect("a variant")
    }

    #[test]
    fn a_query_is_read_and_has_one_name() {
        assert_eq!(Variant::parse("limit=4&album=a"), Ok(None));
        assert_eq!(parsed("q=70&h=20&w=30&fit=cover&fm=jpg").to_string(), "w=30&h=20&fit=cover&fm=jpeg&q=70");
        assert_eq!(parsed("w=320&fit=contain").to_string(), "w=320");
        for bad in ["w=0", "w=4097", "h=-1", "w=", "fit=fill", "fm=avif", "q=0", "q=101"] {
            assert!(Variant::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pictures_are_brought_into_shape_and_never_enlarged() {
        let check = |query: &str, from: (u32, u32), expected: (u32, u32)| {
            let shaped = parsed(query).bring_into_shape(DynamicImage::new_rgb8(from.0, from.1)).unwrap();
            assert_eq!((shaped.width(), shaped.height()), expected, "{query} of {from:?}");
        };
        check("w=100", (400, 300), (100, 75));
        check("h=100", (400, 300), (133, 100));
        check("w=100&h=50", (400, 300), (67, 50));
        check("w=100&h=100&fit=cover", (400, 300), (100, 100));
        check("w=100&h=30&fit=cover", (300, 400), (100, 30));
        check("w=1000", (400, 300), (400, 300));
        check("w=1000&h=1000&fit=cover", (400, 300), (300, 300));
        check("w=10&h=1&fit=cover", (1, 4000), (1, 1));
        check("w=1", (4000, 1), (1, 1));
    }

    #[test]
    fn the_source_is_large_enough() {
        let edges = [2048, 1024, 512, 160];
        for (query, expected) in [
            ("w=100&h=100", PhotoSize::Thumb),
            ("w=161&h=100", PhotoSize::Small),
            ("w=4000&h=1", PhotoSize::Large),
            ("w=100", PhotoSize::Large),
            ("w=100&h=100&fit=cover", PhotoSize::Large),
        ] {
            assert_eq!(parsed(query).source(edges), expected, "{query}");
        }
    }
}
