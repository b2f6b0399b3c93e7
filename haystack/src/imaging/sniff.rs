//! What bytes are, by their first few: names and declared types are not believed.

use crate::error::{Error, Result};
use crate::media_type::MediaType;

/// The image format of `bytes`.
///
/// # Errors
///
/// [`Error::NotAnImage`], which says what they look like.
pub fn image_type(bytes: &[u8]) -> Result<MediaType> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Ok(MediaType::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Ok(MediaType::Png),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(MediaType::Webp),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok(MediaType::Gif),
        _ => Err(Error::NotAnImage { found: other_type(bytes) }),
    }
}

/// A name for what is no image that we take.
fn other_type(bytes: &[u8]) -> &'static str {
    let start = &bytes[..bytes.len().min(512)];
    match start {
        [] => "empty",
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => match brand.first_chunk() {
            Some(b"avif" | b"avis") => "an AVIF image",
            Some(b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1") => "a HEIC image",
            _ => "an MP4 or QuickTime video",
        },
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "a TIFF or raw camera image",
        [b'B', b'M', ..] => "a BMP image",
        [b'%', b'P', b'D', b'F', ..] => "a PDF document",
        [b'P', b'K', 3, 4, ..] => "a ZIP archive",
        [0x1f, 0x8b, ..] => "gzip data",
        [0xff, 0x0a, ..] => "a JPEG XL image",
        _ if contains(start, b"<svg") => "an SVG image",
        _ if contains(start, b"<html") || contains(start, b"<!DOCTYPE") => "an HTML page",
        _ if is_text(start, bytes.len() > start.len()) => "text",
        _ => "data of an unknown kind",
    }
}

fn contains(bytes: &[u8], word: &[u8]) -> bool {
    bytes.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

/// Whether `start` is UTF-8 without control characters; a character may be cut
/// at its end if more follows.
fn is_text(start: &[u8], more_follows: bool) -> bool {
    let valid = match std::str::from_utf8(start) {
        Ok(_) => start.len(),
        Err(error) if error.error_len().is_none() && more_follows => error.valid_up_to(),
        Err(_) => return false,
    };
    start[..valid].iter().all(|byte| !byte.is_ascii_control() || matches!(byte, b'\n' | b'\r' | b'\t' | 0x0c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_image_is_named() {
        let long_text = "caf\u{e9} ".repeat(100);
        let cases: [(&[u8], &str); 8] = [
            (b"", "empty"),
            (b"dear diary\n", "text"),
            (long_text.as_bytes(), "text"),
            (b"\0\0\0\x20ftypheic\0\0\0\0", "a HEIC image"),
            (b"%PDF-1.7", "a PDF document"),
            (b"<?xml version='1.0'?><svg/>", "an SVG image"),
            (b"<!doctype html><p>", "an HTML page"),
            (b"\x00\x01\x02\x03", "data of an unknown kind"),
        ];
        for (bytes, expected) in cases {
            match image_type(bytes) {
                Err(Error::NotAnImage { found }) => assert_eq!(found, expected),
                other => panic!("{other:?}"),
            }
        }
    }
}
