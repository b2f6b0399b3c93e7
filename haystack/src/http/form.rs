//! A form of photos: `multipart/form-data` with files, and the album's name in a
//! field `album`. Each file is a photo, whatever its field is called.

use http::StatusCode;

use super::album::check_album_name;
use super::answer::Refusal;
use super::body::UploadBody;
use super::multipart::{FormError, Multipart, PartHead, Step};
use super::upload::{Key, read_photo_piece};
use crate::in_flight::Room;
use crate::photo::Photo;
use crate::service::Haystack;
use crate::upload_key::Fingerprinter;

/// Bytes of a form field that is no photo.
const TEXT_FIELD_BYTES_MAX: usize = 1 << 10;
/// Bytes of a file's name that are kept.
const FILENAME_BYTES_MAX: usize = 255;

impl From<FormError> for Refusal {
    fn from(error: FormError) -> Self {
        Self::bad_request("broken_form", format!("the form is broken: {error}"))
    }
}

/// A form that is being read.
pub struct Form<'a> {
    service: &'a Haystack,
    multipart: Multipart,
    body: UploadBody,
    /// What the form is, for uploads with a key.
    pub fingerprinter: Fingerprinter,
    /// Photos are only looked at: they were stored by an earlier upload.
    repeats: bool,
    file_count: usize,
    /// The photos that are stored so far.
    pub photos: Vec<Photo>,
    /// The album's name, if a field or the URL gave it.
    pub album: Option<String>,
}

impl<'a> Form<'a> {
    /// The form in `body`.
    ///
    /// # Errors
    ///
    /// 400 if `content_type` is no form's.
    pub fn new(
        service: &'a Haystack,
        content_type: &str,
        album: Option<String>,
        body: UploadBody,
        key: Key<'_>,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            service,
            multipart: Multipart::new(content_type)?,
            body,
            fingerprinter: Fingerprinter::new(key != Key::None),
            repeats: matches!(key, Key::Used(_)),
            file_count: 0,
            photos: Vec::new(),
            album,
        })
    }

    /// Reads the form and stores each of its photos as it arrives.
    ///
    /// # Errors
    ///
    /// What is wrong; [`Form::photos`] are then to be withdrawn.
    pub async fn read(&mut self) -> Result<(), Refusal> {
        loop {
            match self.step().await? {
                Step::Part(PartHead { filename: Some(filename), .. }) => self.read_file(&filename).await?,
                Step::Part(PartHead { name, .. }) => self.read_text(&name).await?,
                Step::End if self.file_count == 0 => {
                    return Err(Refusal::bad_request("no_photo", "the form holds no file"));
                }
                Step::End => return Ok(()),
                Step::More | Step::Data(_) | Step::PartEnd => unreachable!("a part was read to its end"),
            }
        }
    }

    /// The next step that is not [`Step::More`].
    async fn step(&mut self) -> Result<Step, Refusal> {
        loop {
            match self.multipart.step()? {
                Step::More => match self.body.next().await? {
                    Some(piece) => self.multipart.push(piece),
                    None => return Err(FormError::Unfinished.into()),
                },
                step => return Ok(step),
            }
        }
    }

    async fn read_text(&mut self, name: &str) -> Result<(), Refusal> {
        let mut text = Vec::new();
        while let Step::Data(piece) = self.step().await? {
            if text.len() + piece.len() > TEXT_FIELD_BYTES_MAX {
                let message = format!("a text field may have at most {TEXT_FIELD_BYTES_MAX} bytes");
                let refusal = Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "field_too_large", message);
                return Err(Refusal { limit: Some(TEXT_FIELD_BYTES_MAX as u64), ..refusal });
            }
            text.extend_from_slice(&piece);
        }
        if name == "album" && !text.is_empty() && self.album.is_none() {
            let not_text = |_| Refusal::bad_request("bad_album", "the album's name is not UTF-8");
            let album = String::from_utf8(text).map_err(not_text)?;
            check_album_name(&album)?;
            self.album = Some(album);
        }
        Ok(())
    }

    /// Reads and stores a file; nothing if a browser sent it for an empty input.
    async fn read_file(&mut self, filename: &str) -> Result<(), Refusal> {
        let filename = clean_filename(filename);
        self.fingerprinter.update(filename.as_deref().unwrap_or_default().as_bytes());
        self.fingerprinter.end_part();
        let mut is_empty = true;
        // Room is taken once there is something to keep.
        let mut held: Option<(Room, Vec<u8>)> = None;
        while let Step::Data(piece) = self.step().await? {
            is_empty = false;
            self.fingerprinter.update(&piece);
            if !self.repeats {
                self.check_photo_count()?;
                read_photo_piece(self.service, self.body.content_length(), &mut held, &piece).await?;
            }
        }
        self.fingerprinter.end_part();
        if is_empty && filename.is_none() {
            return Ok(());
        }
        self.file_count += 1;
        if self.repeats {
            return Ok(());
        }
        self.check_photo_count()?;
        let (_room, upload) = held.unzip();
        let upload = upload.unwrap_or_default();
        let stored = self.service.store_photo(upload.into(), filename.clone()).await;
        let photo = stored.map_err(|error| match &filename {
            Some(name) => {
                let refusal = Refusal::from(error);
                Refusal { message: format!("{name}: {}", refusal.message), ..refusal }
            }
            None => error.into(),
        })?;
        self.photos.push(photo);
        Ok(())
    }

    fn check_photo_count(&self) -> Result<(), Refusal> {
        let limit = self.service.options().form_photo_count_max;
        if self.photos.len() < limit {
            return Ok(());
        }
        let message = format!("a form may hold at most {limit} photos");
        let refusal = Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_photos", message);
        Err(Refusal { limit: Some(limit as u64), ..refusal })
    }
}

/// The last part of a client's file name, without control characters, cut to a
/// length; none if nothing is left.
pub(super) fn clean_filename(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut clean: String = last.chars().filter(|character| !character.is_control()).collect();
    let end = (0..=FILENAME_BYTES_MAX.min(clean.len())).rev().find(|end| clean.is_char_boundary(*end));
    clean.truncate(end.unwrap_or(0));
    (!clean.is_empty()).then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_lose_their_path_and_what_cannot_be_shown() {
        assert_eq!(clean_filename("C:\\photos\\a.jpg").as_deref(), Some("a.jpg"));
        assert_eq!(clean_filename("../../etc/passwd").as_deref(), Some("passwd"));
        assert_eq!(clean_filename("a\u{0}b\n.png").as_deref(), Some("ab.png"));
        assert_eq!(clean_filename("dir/"), None);
        assert_eq!(clean_filename(&"\u{e9}".repeat(200)).map(|name| name.len()), Some(254));
    }
}
