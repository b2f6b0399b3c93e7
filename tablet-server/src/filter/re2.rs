//! RE2's syntax, turned into that of the `regex` crate without Unicode.
//!
//! The two are almost the same (<https://github.com/google/re2/wiki/Syntax>).
//! What differs is rewritten: `\C`, `\Q…\E`, octal escapes, `\pN` cut to
//! Latin-1, braces that are text, and brackets that know no set operations.
//! What RE2 refuses is refused: repeated repetitions, counts over 1000, flags
//! and escapes that only the crate knows.

use regex_syntax::hir::{Class, HirKind};

use super::byte_set::ByteSet;

/// The most often a repetition may repeat.
const REPEAT_MAX: u32 = 1_000;

/// A pattern in the `regex` crate's terms.
#[derive(Debug)]
pub(super) struct Translation {
    /// In the `regex` crate's syntax, ASCII only.
    pub(super) pattern: String,
    /// The text, where the pattern is nothing else.
    pub(super) literal: Option<Vec<u8>>,
}

/// Turns RE2's syntax into the `regex` crate's.
///
/// # Errors
///
/// A sentence that says what RE2 refuses; the crate refuses the rest.
pub(super) fn translate(pattern: &[u8]) -> Result<Translation, String> {
    let mut translator = Translator {
        rest: pattern,
        pattern: String::new(),
        literal: Some(Vec::new()),
        after_repetition: false,
    };
    while let Some(byte) = translator.take() {
        translator.token(byte)?;
    }
    Ok(Translation { pattern: translator.pattern, literal: translator.literal })
}

struct Translator<'a> {
    rest: &'a [u8],
    pattern: String,
    literal: Option<Vec<u8>>,
    after_repetition: bool,
}

impl Translator<'_> {
    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn take_prefix(&mut self, prefix: &[u8]) -> bool {
        let found = self.rest.strip_prefix(prefix);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn token(&mut self, byte: u8) -> Result<(), String> {
        let repeated = std::mem::take(&mut self.after_repetition);
        match byte {
            b'\\' => self.escape()?,
            b'[' => {
                let class = self.class()?;
                self.syntax(&class);
            }
            b'(' => self.group()?,
            b'*' | b'+' | b'?' => self.repetition(repeated, char::from(byte).to_string())?,
            b'{' => match self.counted_repetition()? {
                Some(counted) => self.repetition(repeated, counted)?,
                None => self.push_literal(byte),
            },
            b'|' | b'^' | b'$' | b'.' | b')' => self.syntax(char::from(byte).encode_utf8(&mut [0; 4])),
            _ => self.push_literal(byte),
        }
        Ok(())
    }

    /// Adds what is more than text.
    fn syntax(&mut self, syntax: &str) {
        self.literal = None;
        self.pattern.push_str(syntax);
    }

    fn push_literal(&mut self, byte: u8) {
        if let Some(literal) = &mut self.literal {
            literal.push(byte);
        }
        push_byte(&mut self.pattern, byte);
    }

    fn repetition(&mut self, repeated: bool, mut operator: String) -> Result<(), String> {
        if repeated {
            return Err(format!("repeats what is repeated already: {operator}"));
        }
        if self.take_prefix(b"?") {
            operator.push('?');
        }
        self.syntax(&operator);
        self.after_repetition = true;
        Ok(())
    }

    /// What follows `{`, if it is a count; RE2 takes the brace as text otherwise.
    fn counted_repetition(&mut self) -> Result<Option<String>, String> {
        let Some(end) = self.rest.iter().position(|byte| *byte == b'}') else { return Ok(None) };
        let Ok(counts) = str::from_utf8(&self.rest[..end]) else { return Ok(None) };
        let (least, most) = counts.split_once(',').unwrap_or((counts, counts));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if least.is_empty() || !digits(least) || !digits(most) {
            return Ok(None);
        }
        let bound = |text: &str| match text.parse::<u32>() {
            Ok(count) if count <= REPEAT_MAX => Ok(count),
            _ => Err(format!("repeats {text} times, at most {REPEAT_MAX}")),
        };
        if !most.is_empty() && bound(least)? > bound(most)? {
            return Err(format!("repeats at least {least} and at most {most} times"));
        }
        bound(least)?;
        let counted = format!("{{{counts}}}");
        self.rest = &self.rest[end + 1..];
        Ok(Some(counted))
    }

    /// What follows `(`: captures are of no use here, and flags are RE2's four.
    fn group(&mut self) -> Result<(), String> {
        if !self.take_prefix(b"?") {
            self.syntax("(?:");
            return Ok(());
        }
        if self.take_prefix(b"P<") || self.take_prefix(b"<") {
            let end = self.rest.iter().position(|byte| *byte == b'>').ok_or("a group's name has no end")?;
            let name = &self.rest[..end];
            if name.is_empty() || !name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
                return Err("a group's name is of letters, digits and _".to_owned());
            }
            self.rest = &self.rest[end + 1..];
            self.syntax("(?:");
            return Ok(());
        }
        let mut flags = String::from("(?");
        loop {
            match self.take() {
                Some(flag @ (b'i' | b'm' | b's' | b'U' | b'-')) => flags.push(char::from(flag)),
                Some(end @ (b':' | b')')) => {
                    flags.push(char::from(end));
                    // `(?)` changes nothing, which the crate has no way to say.
                    self.syntax(if flags == "(?)" { "(?:)" } else { &flags });
                    return Ok(());
                }
                Some(other) => return Err(format!("unknown flag: {}", other.escape_ascii())),
                None => return Err("a group has no end".to_owned()),
            }
        }
    }

    /// What follows a backslash, outside of brackets.
    fn escape(&mut self) -> Result<(), String> {
        match self.take().ok_or("ends in a backslash")? {
            b'C' => self.syntax("(?s:.)"),
            b'Q' => {
                while !self.rest.is_empty() && !self.take_prefix(br"\E") {
                    if let Some(byte) = self.take() {
                        self.push_literal(byte);
                    }
                }
            }
            byte @ (b'A' | b'z' | b'b' | b'B') => self.syntax(&format!("\\{}", char::from(byte))),
            byte => match self.class_escape(byte)? {
                Some(set) => {
                    let class = set.as_class(false);
                    self.syntax(&class);
                }
                None => {
                    let literal = self.byte_escape(byte)?;
                    self.push_literal(literal);
                }
            },
        }
        Ok(())
    }

    /// The bytes that `\` and `byte` stand for, where they stand for several.
    fn class_escape(&mut self, byte: u8) -> Result<Option<ByteSet>, String> {
        let mut set = match byte {
            b'd' | b'D' => ByteSet::of(|byte| byte.is_ascii_digit()),
            b's' | b'S' => ByteSet::of(|byte| matches!(byte, b'\t' | b'\n' | 0x0C | b'\r' | b' ')),
            b'w' | b'W' => ByteSet::of(|byte| byte.is_ascii_alphanumeric() || byte == b'_'),
            b'p' | b'P' => self.unicode_class()?,
            _ => return Ok(None),
        };
        if byte.is_ascii_uppercase() {
            set.negate();
        }
        Ok(Some(set))
    }

    /// The Latin-1 part of the Unicode class that follows `\p`.
    fn unicode_class(&mut self) -> Result<ByteSet, String> {
        let name = match self.take().ok_or("a Unicode class has no name")? {
            b'{' => {
                let end =
                    self.rest.iter().position(|byte| *byte == b'}').ok_or("a Unicode class has no end")?;
                let name = String::from_utf8_lossy(&self.rest[..end]).into_owned();
                self.rest = &self.rest[end + 1..];
                name
            }
            letter => char::from(letter).to_string(),
        };
        let (negated, name) = name.strip_prefix('^').map_or((false, name.as_str()), |name| (true, name));
        let unknown = || format!("unknown Unicode class: {}", name.escape_debug());
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(unknown());
        }
        let hir = regex_syntax::parse(&format!(r"\p{{{name}}}")).map_err(|_| unknown())?;
        let mut set = match hir.kind() {
            HirKind::Class(Class::Unicode(class)) => ByteSet::of(|byte| {
                let letter = char::from(byte);
                class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&letter))
            }),
            HirKind::Class(Class::Bytes(class)) => ByteSet::of(|byte| {
                class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&byte))
            }),
            _ => return Err(unknown()),
        };
        if negated {
            set.negate();
        }
        Ok(set)
    }

    /// The one byte that `\` and `byte` stand for.
    fn byte_escape(&mut self, byte: u8) -> Result<u8, String> {
        let code = match byte {
            b'a' => 0x07,
            b'f' => 0x0C,
            b'n' => u32::from(b'\n'),
            b'r' => u32::from(b'\r'),
            b't' => u32::from(b'\t'),
            b'v' => 0x0B,
            b'x' => self.hexadecimal()?,
            // A single digit but 0 would be a back reference, which RE2 has not.
            b'0' => self.octal(0),
            b'1'..=b'7' if self.rest.first().is_some_and(|next| (b'0'..=b'7').contains(next)) => {
                self.octal(u32::from(byte - b'0'))
            }
            byte if byte.is_ascii() && !byte.is_ascii_alphanumeric() && byte != b'_' => u32::from(byte),
            byte => return Err(format!("unknown escape: \\{}", byte.escape_ascii())),
        };
        u8::try_from(code).map_err(|_| format!("{code:#x} is no byte"))
    }

    /// Up to two more octal digits.
    fn octal(&mut self, first: u32) -> u32 {
        let mut code = first;
        for _ in 0..2 {
            match self.rest.split_first() {
                Some((digit @ b'0'..=b'7', rest)) => {
                    code = code * 8 + u32::from(digit - b'0');
                    self.rest = rest;
                }
                _ => break,
            }
        }
        code
    }

    /// Two hexadecimal digits, or some in braces.
    fn hexadecimal(&mut self) -> Result<u32, String> {
        let bad = || r"\x is followed by two hexadecimal digits, or some in braces".to_owned();
        let length = match self.take_prefix(b"{") {
            true => self.rest.iter().position(|byte| *byte == b'}').ok_or_else(bad)?,
            false => 2,
        };
        let digits =
            self.rest.get(..length).and_then(|digits| str::from_utf8(digits).ok()).ok_or_else(bad)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let code = u32::from_str_radix(digits, 16).map_err(|_| bad())?;
        self.rest = &self.rest[length..];
        self.take_prefix(b"}");
        Ok(code)
    }

    /// What follows `[`. A negated class stays one in the result, so that case
    /// folding happens before the negation, as in RE2.
    fn class(&mut self) -> Result<String, String> {
        let negated = self.take_prefix(b"^");
        let mut set = ByteSet::default();
        let mut first = true;
        loop {
            let byte = self.take().ok_or("a class has no end")?;
            match byte {
                b']' if !first => return Ok(set.as_class(negated)),
                b'[' if self.rest.first() == Some(&b':') && self.named_class(&mut set)? => {}
                _ => self.class_item(byte, &mut set)?,
            }
            first = false;
        }
    }

    /// A single byte, a range, or an escaped class within brackets.
    fn class_item(&mut self, byte: u8, set: &mut ByteSet) -> Result<(), String> {
        let low = match byte {
            b'\\' => {
                let escaped = self.take().ok_or("ends in a backslash")?;
                if let Some(more) = self.class_escape(escaped)? {
                    set.add(|byte| more.holds(byte));
                    return Ok(());
                }
                self.byte_escape(escaped)?
            }
            byte => byte,
        };
        let mut high = low;
        if let [b'-', end, ..] = self.rest
            && *end != b']'
        {
            self.take_prefix(b"-");
            high = match self.take().ok_or("a class has no end")? {
                b'\\' => {
                    let escaped = self.take().ok_or("ends in a backslash")?;
                    self.byte_escape(escaped)?
                }
                byte => byte,
            };
        }
        if low > high {
            return Err(format!(
                "a range ends before it starts: {}-{}",
                low.escape_ascii(),
                high.escape_ascii()
            ));
        }
        set.add(|byte| (low..=high).contains(&byte));
        Ok(())
    }

    /// `[:alpha:]` and its like, from its colon on; false where it is none.
    fn named_class(&mut self, set: &mut ByteSet) -> Result<bool, String> {
        let Some(end) = self.rest.windows(2).position(|pair| pair == b":]").filter(|end| *end > 0) else {
            return Ok(false);
        };
        let name = &self.rest[1..end];
        let (negated, name) = name.strip_prefix(b"^").map_or((false, name), |name| (true, name));
        let mut named =
            ByteSet::named(name).ok_or_else(|| format!("unknown class: [:{}:]", name.escape_ascii()))?;
        if negated {
            named.negate();
        }
        set.add(|byte| named.holds(byte));
        self.rest = &self.rest[end + 2..];
        Ok(true)
    }
}

fn push_byte(pattern: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() {
        pattern.push(char::from(byte));
    } else {
        pattern.push_str(&format!(r"\x{byte:02X}"));
    }
}
