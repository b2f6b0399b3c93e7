//! What is known of a photo beside its bytes: the directory's row, and the JSON
//! that clients get.

use serde::{Deserialize, Serialize};

use crate::imaging::Rendition;
use crate::photo_id::{PhotoId, PhotoSize};

/// One size of a photo, as the directory keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeDescription {
    /// Pixels across, as it is shown.
    pub width: u32,
    /// Pixels down, as it is shown.
    pub height: u32,
    /// Its length.
    pub bytes: u64,
    /// Its format.
    pub content_type: String,
}

/// A photo, as the directory keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Photo {
    /// Its id.
    pub id: PhotoId,
    /// The album that it is in.
    pub album: Option<String>,
    /// The name that the client gave to it.
    pub filename: Option<String>,
    /// Its sizes, largest first; the original is among them.
    pub sizes: Vec<(PhotoSize, SizeDescription)>,
}

impl Photo {
    /// The photo `id` with `renditions`.
    pub fn new(
        id: PhotoId,
        renditions: &[Rendition],
        album: Option<String>,
        filename: Option<String>,
    ) -> Self {
        let describe = |rendition: &Rendition| SizeDescription {
            width: rendition.width,
            height: rendition.height,
            bytes: rendition.data.len() as u64,
            content_type: rendition.media_type.content_type().to_owned(),
        };
        let sizes = renditions.iter().map(|rendition| (rendition.size, describe(rendition))).collect();
        Self { id, album, filename, sizes }
    }

    /// The photo's path in URLs.
    pub fn path(&self) -> String {
        format!("/photos/{}", self.id)
    }

    /// The photo for clients.
    pub fn to_json(&self) -> PhotoJson<'_> {
        let original = self.sizes.iter().find(|(size, _)| *size == PhotoSize::Original);
        PhotoJson {
            id: self.id.to_string(),
            url: self.path(),
            original: original.map(|(_, description)| description),
            album: self.album.as_deref(),
            filename: self.filename.as_deref(),
            uploaded_ms: self.id.key.uploaded_ms(),
            sizes: SizesJson(self),
        }
    }
}

/// The JSON of a photo. URLs in it are paths on the server that sent it.
#[derive(Debug, Serialize)]
pub struct PhotoJson<'a> {
    id: String,
    url: String,
    #[serde(flatten)]
    original: Option<&'a SizeDescription>,
    #[serde(skip_serializing_if = "Option::is_none")]
    album: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filename: Option<&'a str>,
    uploaded_ms: u64,
    sizes: SizesJson<'a>,
}

#[derive(Debug)]
struct SizesJson<'a>(&'a Photo);

impl Serialize for SizesJson<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct SizeJson<'a> {
            url: String,
            #[serde(flatten)]
            description: &'a SizeDescription,
        }
        let Self(photo) = self;
        let path = photo.path();
        serializer.collect_map(photo.sizes.iter().map(|(size, description)| {
            let name = size.name();
            (name, SizeJson { url: format!("{path}/{name}"), description })
        }))
    }
}
