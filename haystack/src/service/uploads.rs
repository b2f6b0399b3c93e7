//! What the service does with what clients upload beside plain photos: uploads
//! with a key, blobs, and uploads that came in parts.

use crate::blob::{Blob, BlobAbout, Condition};
use crate::chunk::Chunk;
use crate::error::{Error, Result};
use crate::partial_upload::{PartialUpload, Target};
use crate::photo::Photo;
use crate::photo_id::PhotoSize;
use crate::upload_key::{Claim, Fingerprint, Fingerprinter};
use crate::url::path_of_blob;

use super::Haystack;

impl Haystack {
    /// Publishes `photos`, which are stored, unless the upload `key` was used
    /// before: then they are withdrawn, and the claim that it was used for is given.
    ///
    /// # Durability
    ///
    /// The photos of the claim, whoever's it is, are durable when this returns.
    ///
    /// # Errors
    ///
    /// As [`Haystack::publish`]. A claim may have been made; the next upload with
    /// this key completes it.
    pub(crate) async fn publish_once(
        &self,
        key: &str,
        fingerprint: Fingerprint,
        photos: &[Photo],
    ) -> Result<Option<Claim>> {
        let claim = Claim::new(fingerprint, photos);
        match self.upload_keys().claim(key, &claim, self.now_ms()).await {
            Ok(None) => {
                // Not withdrawn if it fails: the claim names them.
                self.insert_rows(photos).await.map(|()| None)
            }
            Ok(Some(earlier)) => {
                self.withdraw(photos).await;
                self.complete_claim(&earlier).await?;
                Ok(Some(earlier))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the rows of the photos in `claim` that a crash has left out. What
    /// was deleted since stays deleted.
    ///
    /// # Errors
    ///
    /// The directory's, and those of [`Haystack::read`].
    pub(crate) async fn complete_claim(&self, claim: &Claim) -> Result<()> {
        for photo in claim.photos() {
            if self.directory().get(&photo.id).await?.is_none()
                && self.read(&photo.id, PhotoSize::Thumb).await?.is_some()
            {
                self.directory().insert(&photo).await?;
            }
        }
        Ok(())
    }

    /// A blob of `bytes` in `chunks`, put now.
    pub(crate) fn new_blob(&self, bytes: u64, content_type: String, chunks: Vec<Chunk>) -> Blob {
        let about = BlobAbout { bytes, content_type, modified_ms: self.now_ms() };
        Blob { etag: format!("{:016x}", self.random()), about, chunks }
    }

    /// Makes `name` point to `blob` and deletes what it pointed to before;
    /// whether there was something. None if `condition` did not hold: then the
    /// chunks of `blob` are deleted.
    ///
    /// # Durability
    ///
    /// The name is durable when this returns.
    ///
    /// # Errors
    ///
    /// As [`Blobs::put`](crate::blob::Blobs::put).
    pub(crate) async fn put_blob(
        &self,
        name: &str,
        blob: &mut Blob,
        condition: &Condition,
    ) -> Result<Option<bool>> {
        match self.blobs().put(name, blob, condition).await {
            Ok(Some(before)) => {
                if let Some(Blob { mut chunks, .. }) = before.clone() {
                    // An upload that is finished twice puts the same chunks twice.
                    chunks.retain(|chunk| !blob.chunks.contains(chunk));
                    self.delete_chunks(&chunks).await;
                }
                Ok(Some(before.is_some()))
            }
            Ok(None) => {
                self.delete_chunks(&blob.chunks).await;
                Ok(None)
            }
            Err(error) => {
                if matches!(error, Error::DirectoryAway) {
                    self.delete_chunks(&blob.chunks).await;
                }
                Err(error)
            }
        }
    }

    /// Deletes the blob `name` if `condition` holds; whether it held.
    ///
    /// # Durability
    ///
    /// The name is gone for good when this returns.
    ///
    /// # Errors
    ///
    /// As [`Blobs::remove`](crate::blob::Blobs::remove).
    pub(crate) async fn delete_blob(&self, name: &str, condition: &Condition) -> Result<bool> {
        let Some(before) = self.blobs().remove(name, condition).await? else { return Ok(false) };
        if let Some(blob) = before {
            self.delete_chunks(&blob.chunks).await;
        }
        Ok(true)
    }

    /// Makes the complete `upload` what it is to become, and gives the path of
    /// that. Doing so twice is doing it once.
    ///
    /// # Durability
    ///
    /// It is durable when this returns.
    ///
    /// # Errors
    ///
    /// Those of storing a photo or a blob; the upload is still there.
    pub(crate) async fn finish_upload(&self, upload: &PartialUpload) -> Result<String> {
        let url = match &upload.about.target {
            Target::Blob { name, content_type } => {
                let bytes = upload.about.length;
                let mut blob = self.new_blob(bytes, content_type.clone(), upload.chunks.clone());
                self.put_blob(name, &mut blob, &Condition::None).await?;
                path_of_blob(name)
            }
            Target::Photo { album, filename } => {
                let photo = self.assemble_photo(upload, album.clone(), filename.clone()).await?;
                photo.path()
            }
        };
        self.partial_uploads().complete(upload, &url, self.now_ms()).await?;
        if matches!(upload.about.target, Target::Photo { .. }) {
            self.delete_chunks(&upload.chunks).await;
        }
        Ok(url)
    }

    async fn assemble_photo(
        &self,
        upload: &PartialUpload,
        album: Option<String>,
        filename: Option<String>,
    ) -> Result<Photo> {
        let key = format!("upload {}", upload.id);
        if let Some(photo) = self.claimed_photo(&key).await? {
            return Ok(photo);
        }
        let _room = self.uploads_in_flight().room_for(upload.about.length).await?;
        let mut bytes = Vec::with_capacity(usize::try_from(upload.about.length).unwrap_or(0));
        for chunk in &upload.chunks {
            let gone =
                || Error::DamagedImage { format: "uploaded", found: "a part of it is gone".to_owned() };
            let needle = self.read(&chunk.id, PhotoSize::Original).await?.ok_or_else(gone)?;
            bytes.extend_from_slice(&needle.data);
        }
        let mut photo = self.store_photo(bytes.into(), filename).await?;
        photo.album = album;
        let fingerprint = Fingerprinter::new(false).finish();
        match self.publish_once(&key, fingerprint, std::slice::from_ref(&photo)).await? {
            None => Ok(photo),
            Some(earlier) => Ok(earlier.photos().into_iter().next().unwrap_or(photo)),
        }
    }

    async fn claimed_photo(&self, key: &str) -> Result<Option<Photo>> {
        let Some(claim) = self.upload_keys().find(key).await? else { return Ok(None) };
        self.complete_claim(&claim).await?;
        Ok(claim.photos().into_iter().next())
    }

    /// Forgets `upload`, and what arrived of it unless it became something.
    ///
    /// # Errors
    ///
    /// The directory's.
    pub(crate) async fn forget_upload(&self, upload: &PartialUpload) -> Result<()> {
        self.partial_uploads().remove(&upload.id).await?;
        if upload.url.is_none() {
            self.delete_chunks(&upload.chunks).await;
        }
        Ok(())
    }

    /// Forgets the uploads that have expired.
    ///
    /// # Errors
    ///
    /// The directory's; the rest stays until the next time.
    pub(crate) async fn sweep_uploads(&self) -> Result<()> {
        /// Uploads of one look.
        const ROW_COUNT_MAX: usize = 1000;
        let mut after: Option<String> = None;
        loop {
            let uploads = self.partial_uploads();
            let (expired, next) = uploads.expired(after.as_deref(), ROW_COUNT_MAX, self.now_ms()).await?;
            for id in expired {
                let Some(_turn) = uploads.begin(&id) else { continue };
                if let Some(upload) = uploads.get_expired(&id).await? {
                    self.forget_upload(&upload).await?;
                }
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }
}
