//! What a needle's data is, so that a read can say so without a table.

/// The kind of a needle's data: one byte of its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MediaType {
    /// Bytes of no kind that we know; a tombstone's, which has none.
    OctetStream = 1,
    /// A JPEG image.
    Jpeg = 2,
    /// A PNG image.
    Png = 3,
    /// A WebP image.
    Webp = 4,
    /// A GIF image.
    Gif = 5,
}

impl MediaType {
    /// The kind whose tag is `tag`.
    pub fn from_tag(tag: u8) -> Option<Self> {
        Some(match tag {
            1 => Self::OctetStream,
            2 => Self::Jpeg,
            3 => Self::Png,
            4 => Self::Webp,
            5 => Self::Gif,
            _ => return None,
        })
    }

    /// The byte that stands for it.
    pub fn tag(self) -> u8 {
        self as u8
    }

    /// Its name in HTTP.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OctetStream => "application/octet-stream",
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
            Self::Gif => "image/gif",
        }
    }

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::OctetStream => "binary",
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Webp => "WebP",
            Self::Gif => "GIF",
        }
    }
}
