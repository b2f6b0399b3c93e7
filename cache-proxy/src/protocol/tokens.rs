//! A line's words: what stands between spaces.

/// memcached's bound on the words of any line but a get's.
const TOKEN_COUNT_MAX: usize = 23;

/// The first words of a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens<'a> {
    tokens: [&'a [u8]; TOKEN_COUNT_MAX],
    count: usize,
}

impl<'a> Tokens<'a> {
    /// The words of `line`; those over the bound are left out.
    pub(crate) fn split(line: &'a [u8]) -> Self {
        let mut tokens = Self { tokens: [b""; TOKEN_COUNT_MAX], count: 0 };
        let mut rest = line;
        while tokens.count < TOKEN_COUNT_MAX
            && let Some((token, after)) = next_token(rest)
        {
            tokens.tokens[tokens.count] = token;
            tokens.count += 1;
            rest = after;
        }
        tokens
    }

    pub(crate) fn as_slice(&self) -> &[&'a [u8]] {
        &self.tokens[..self.count]
    }
}

/// The words of a text, however many.
#[derive(Clone, Debug)]
pub(crate) struct Words<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (word, rest) = next_token(self.0)?;
        self.0 = rest;
        Some(word)
    }
}

/// The next word of `text`, and what follows it.
pub(crate) fn next_token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = text.iter().position(|byte| *byte != b' ')?;
    let text = &text[start..];
    let end = memchr::memchr(b' ', text).unwrap_or(text.len());
    Some(text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_between_any_number_of_spaces() {
        let tokens = Tokens::split(b"  set  a 1 ");
        assert_eq!(tokens.as_slice(), [b"set".as_slice(), b"a", b"1"]);
        assert!(Tokens::split(b"   ").as_slice().is_empty());
        assert_eq!(Tokens::split(&b"x ".repeat(40)).as_slice().len(), TOKEN_COUNT_MAX);
    }
}
