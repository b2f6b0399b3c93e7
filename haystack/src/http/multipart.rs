//! Forms with files (RFC 7578 over RFC 2046, section 5.1), taken apart as their
//! bytes arrive.
//!
//! [`Multipart`] is pure: bytes are pushed in, steps come out. It holds what it
//! was given last and has not handed out, never more than a part's head or one
//! piece: callers push only when [`Step::More`] asks for it. Data is handed out
//! as slices of the pieces that came in, not copied, but for the few bytes at a
//! piece's end that may begin a boundary.

use bytes::{Bytes, BytesMut};
use memchr::memmem;
use percent_encoding::percent_decode_str;

/// Bytes of a boundary, at most (RFC 2046, section 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;
/// Bytes of a part's head, at most.
pub const PART_HEAD_BYTES_MAX: usize = 8 << 10;

/// What is wrong with a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// The content type names no boundary, or an impossible one.
    #[error("its content type names no boundary of 1 to {BOUNDARY_BYTES_MAX} characters")]
    Boundary,
    /// A part's head is too long.
    #[error("a part's head has more than {PART_HEAD_BYTES_MAX} bytes")]
    HeadTooLong,
    /// A part's head is not made of fields.
    #[error("a part's head is not UTF-8, or a line of it is no field")]
    Head,
    /// A part does not say which field of the form it is.
    #[error("a part has no content-disposition with a name")]
    NoName,
    /// A boundary is followed by what cannot follow it.
    #[error("a boundary is followed by neither a part nor the end")]
    AfterBoundary,
    /// The body ended before the form did.
    #[error("it ends before its last boundary")]
    Unfinished,
}

/// The head of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartHead {
    /// The form's field.
    pub name: String,
    /// The file's name as the client gave it; none if the part is no file.
    pub filename: Option<String>,
}

/// What comes next in a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed.
    More,
    /// A part begins.
    Part(PartHead),
    /// Some of the part's content.
    Data(Bytes),
    /// The part is complete.
    PartEnd,
    /// The form is complete.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first boundary.
    Preamble,
    /// Right after a boundary.
    Boundary,
    /// In a part's head.
    Head,
    /// In a part's content.
    Content,
    /// After the last boundary.
    Done,
}

/// A form that is being taken apart.
#[derive(Clone, Debug)]
pub struct Multipart {
    /// A line break, two dashes and the boundary.
    delimiter: Vec<u8>,
    held: Bytes,
    state: State,
}

impl Multipart {
    /// A form whose content type is `content_type`.
    ///
    /// # Errors
    ///
    /// [`FormError::Boundary`]
    pub fn new(content_type: &str) -> Result<Self, FormError> {
        let boundary = parameter(content_type, "boundary").ok_or(FormError::Boundary)?;
        let possible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        if !(1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()) || !boundary.bytes().all(possible) {
            return Err(FormError::Boundary);
        }
        let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
        // A form may begin with its first boundary: as if a line had ended before.
        Ok(Self { delimiter, held: Bytes::from_static(b"\r\n"), state: State::Preamble })
    }

    /// Gives the form its next bytes.
    pub fn push(&mut self, piece: Bytes) {
        if self.state == State::Done {
            return;
        }
        if self.held.is_empty() {
            self.held = piece;
            return;
        }
        let mut joined = BytesMut::with_capacity(self.held.len() + piece.len());
        joined.extend_from_slice(&self.held);
        joined.extend_from_slice(&piece);
        self.held = joined.freeze();
    }

    /// What comes next.
    ///
    /// # Errors
    ///
    /// What is wrong with the form; there is no next step then.
    pub fn step(&mut self) -> Result<Step, FormError> {
        loop {
            match self.state {
                State::Preamble => match self.before_delimiter() {
                    (_, true) => self.state = State::Boundary,
                    (_, false) => return Ok(Step::More),
                },
                State::Content => match self.before_delimiter() {
                    (data, true) if data.is_empty() => {
                        self.state = State::Boundary;
                        return Ok(Step::PartEnd);
                    }
                    (data, false) if data.is_empty() => return Ok(Step::More),
                    // A boundary behind the data is found again at the next step.
                    (data, _) => return Ok(Step::Data(data)),
                },
                State::Boundary => match self.after_boundary()? {
                    Some(state) => self.state = state,
                    None => return Ok(Step::More),
                },
                State::Head => {
                    let Some(head) = self.head()? else { return Ok(Step::More) };
                    self.state = State::Content;
                    return Ok(Step::Part(head));
                }
                State::Done => return Ok(Step::End),
            }
        }
    }

    /// Takes what stands before the next delimiter, or before what may become
    /// one; whether the delimiter follows. It is taken too if nothing stood before.
    fn before_delimiter(&mut self) -> (Bytes, bool) {
        let (end, found) = match memmem::find(&self.held, &self.delimiter) {
            Some(at) => (at, true),
            None => (self.held.len() - self.begun_delimiter_bytes(), false),
        };
        let data = self.held.split_to(end);
        let skips_preamble = self.state == State::Preamble;
        if found && (data.is_empty() || skips_preamble) {
            drop(self.held.split_to(self.delimiter.len()));
        }
        (data, found)
    }

    /// Bytes at the end of what is held that begin like the delimiter.
    fn begun_delimiter_bytes(&self) -> usize {
        let longest = self.held.len().min(self.delimiter.len() - 1);
        (1..=longest).rev().find(|length| self.held.ends_with(&self.delimiter[..*length])).unwrap_or(0)
    }

    /// The state after the boundary that was just passed; none if more is needed.
    fn after_boundary(&mut self) -> Result<Option<State>, FormError> {
        let padding = self.held.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let (taken, state) = match &self.held[padding..] {
            [b'-', b'-', ..] if padding == 0 => (2, State::Done),
            // The line's end stays: it may be the end of an empty head.
            [b'\r', b'\n', ..] => (padding, State::Head),
            [] | [b'\r'] => (0, State::Boundary),
            [b'-'] if padding == 0 => (0, State::Boundary),
            _ => return Err(FormError::AfterBoundary),
        };
        if state == State::Boundary {
            return if padding > PART_HEAD_BYTES_MAX { Err(FormError::HeadTooLong) } else { Ok(None) };
        }
        drop(self.held.split_to(taken));
        if state == State::Done {
            self.held = Bytes::new();
        }
        Ok(Some(state))
    }

    /// The head that begins here, with the end of the boundary's line; none if
    /// more is needed.
    fn head(&mut self) -> Result<Option<PartHead>, FormError> {
        const END: &[u8] = b"\r\n\r\n";
        let searched = &self.held[..self.held.len().min(PART_HEAD_BYTES_MAX)];
        let Some(end) = memmem::find(searched, END) else {
            let too_long = searched.len() == PART_HEAD_BYTES_MAX;
            return if too_long { Err(FormError::HeadTooLong) } else { Ok(None) };
        };
        let head = self.held.split_to(end + END.len());
        parse_head(std::str::from_utf8(&head[..end]).map_err(|_| FormError::Head)?).map(Some)
    }
}

fn parse_head(head: &str) -> Result<PartHead, FormError> {
    for line in head.split("\r\n").filter(|line| !line.is_empty()) {
        let (field, value) = line.split_once(':').ok_or(FormError::Head)?;
        if !field.trim().eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        let name = parameter(value, "name").ok_or(FormError::NoName)?;
        let extended = parameter(value, "filename*").and_then(|text| decode_extended(&text));
        return Ok(PartHead { name, filename: extended.or_else(|| parameter(value, "filename")) });
    }
    Err(FormError::NoName)
}

/// A file name as RFC 8187 writes it: `UTF-8'en'na%C3%AFve.jpg`.
fn decode_extended(text: &str) -> Option<String> {
    let mut parts = text.splitn(3, '\'');
    let (charset, _language, value) = (parts.next()?, parts.next()?, parts.next()?);
    let decoded = percent_decode_str(value).decode_utf8().ok()?;
    charset.eq_ignore_ascii_case("utf-8").then(|| decoded.into_owned())
}

/// The parameter `name` of a field's value: `…; name=token` or `…; name="text"`,
/// where a backslash stands before a quote or a backslash only, so that paths of
/// Windows survive.
fn parameter(value: &str, name: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (key, after) = rest.split_once('=')?;
        // A parameter without a value stands before this one.
        let key = key.rsplit(';').next().unwrap_or_default().trim();
        let (text, following) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(text);
        }
        rest = following.split_once(';')?.1;
    }
}

/// The text up to the closing quote, and what follows that.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((text, &quoted[at + 1..])),
            '\\' => text.push(match characters.peek() {
                Some((_, escaped @ ('"' | '\\'))) => {
                    let escaped = *escaped;
                    characters.next();
                    escaped
                }
                _ => '\\',
            }),
            other => text.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of `body`, pushed in pieces of `piece_bytes`.
    fn parts(body: &[u8], piece_bytes: usize) -> Result<Vec<(PartHead, Vec<u8>)>, FormError> {
        let mut form = Multipart::new("multipart/form-data; boundary=B").unwrap();
        let mut pieces = body.chunks(piece_bytes);
        let (mut parts, mut open) = (Vec::new(), None);
        loop {
            match form.step()? {
                Step::More => match pieces.next() {
                    Some(piece) => form.push(Bytes::copy_from_slice(piece)),
                    None => return Err(FormError::Unfinished),
                },
                Step::Part(head) => open = Some((head, Vec::new())),
                Step::Data(data) => open.as_mut().expect("data stands in a part").1.extend(data),
                Step::PartEnd => parts.extend(open.take()),
                Step::End => return Ok(parts),
            }
        }
    }

    fn file(name: &str, filename: Option<&str>) -> PartHead {
        PartHead { name: name.to_owned(), filename: filename.map(str::to_owned) }
    }

    #[test]
    fn a_form_is_the_same_in_pieces_of_any_size() {
        let body = b"preamble\r\n--B \r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\n--\r\n--Bob\r\n\
            --B\r\ncontent-type: image/jpeg\r\ncontent-disposition: form-data; name=b; filename=\"x\\\"y.jpg\"\r\n\r\n\
            \r\n\r\n--B\r\n\r\n";
        // `--Bob` is no boundary followed by a line's end, so the form is broken there.
        assert_eq!(parts(body, 1), Err(FormError::AfterBoundary));
        let body = b"--B\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\none\r\n--\r\n-B\r\n--B\r\n\
            content-type: image/jpeg\r\ncontent-disposition: form-data; name=b; filename=\"x\\\"y.jpg\"\r\n\r\n\
            \r\n\r\r\n--B\r\nContent-Disposition: form-data; name=\"c\"; filename=\"\"\r\n\r\n\r\n--B--\r\nepilogue";
        let expected = vec![
            (file("a", None), b"one\r\n--\r\n-B".to_vec()),
            (file("b", Some("x\"y.jpg")), b"\r\n\r".to_vec()),
            (file("c", Some("")), Vec::new()),
        ];
        for piece_bytes in 1..=body.len() {
            assert_eq!(parts(body, piece_bytes).as_ref(), Ok(&expected), "pieces of {piece_bytes}");
        }
        for length in 0..body.len() - b"--\r\nepilogue".len() {
            assert_eq!(parts(&body[..length], 7), Err(FormError::Unfinished), "cut at {length}");
        }
    }

    #[test]
    fn what_is_no_form_is_told_apart() {
        let long = [b"--B\r\nx: ".as_slice(), &[b'y'; 2 * PART_HEAD_BYTES_MAX]].concat();
        let cases: [(&[u8], FormError); 6] = [
            (b"", FormError::Unfinished),
            (b"--Bx", FormError::AfterBoundary),
            (b"--B\r\n\r\n", FormError::NoName),
            (b"--B\r\nno field\r\n\r\n", FormError::Head),
            (b"--B\r\ncontent-disposition: form-data; filename=x\r\n\r\n", FormError::NoName),
            (&long, FormError::HeadTooLong),
        ];
        for (body, error) in cases {
            assert_eq!(
                parts(body, 1000),
                Err(error),
                "{}",
                String::from_utf8_lossy(&body[..body.len().min(60)])
            );
        }
    }

    #[test]
    fn parameters_are_found_among_others() {
        let disposition =
            "form-data; name=\"photo\"; x; filename=\"a;b=c.jpg\"; filename*=UTF-8''na%C3%AFve.jpg";
        assert_eq!(parameter(disposition, "name").as_deref(), Some("photo"));
        assert_eq!(parameter(disposition, "filename").as_deref(), Some("a;b=c.jpg"));
        assert_eq!(
            parse_head(&format!("content-disposition: {disposition}")).unwrap().filename.as_deref(),
            Some("na\u{ef}ve.jpg")
        );
        assert_eq!(
            parameter("form-data; name=\"C:\\dir\\a.jpg\"", "name").as_deref(),
            Some("C:\\dir\\a.jpg")
        );
        assert_eq!(parameter("form-data; name=\"open", "name"), None);
        assert_eq!(parameter("form-data", "name"), None);
        for bad in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"\u{e9}\"",
        ] {
            assert_eq!(Multipart::new(bad).unwrap_err(), FormError::Boundary, "{bad}");
        }
    }
}
