//! RE2 patterns over bytes, matched in full.
//!
//! Bigtable compiles patterns as RE2 does in Latin-1: each byte is a character,
//! in the pattern and in what it is matched with (`RowFilter` in the v2 proto;
//! <https://github.com/google/re2/wiki/Syntax>). The `regex` crate without
//! Unicode does the same, for a syntax that is almost RE2's; [`translate`]
//! turns one into the other: `\C`, `\Q…\E`, octal escapes, `\pN` cut to
//! Latin-1, literal braces, and brackets that know no set operations. What RE2
//! refuses is refused.

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, HirKind};

/// The most often a repetition may repeat, as in RE2.
const REPEAT_MAX: u32 = 1_000;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// Matches these bytes and no others.
    Literal(Vec<u8>),
    /// All else.
    Regex(Regex),
}

impl Pattern {
    /// Compiles `pattern`. Its program and its caches are kept below
    /// `program_bytes_max` each.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong with the pattern.
    pub(super) fn compile(pattern: &[u8], program_bytes_max: usize) -> Result<Self, String> {
        let translation = translate(pattern)?;
        if let Some(literal) = translation.literal {
            return Ok(Self::Literal(literal));
        }
        let anchored = format!(r"\A(?:{})\z", translation.pattern);
        RegexBuilder::new(&anchored)
            .unicode(false)
            .size_limit(program_bytes_max)
            .dfa_size_limit(program_bytes_max)
            .build()
            .map(Self::Regex)
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(max) => format!("needs more than {max} bytes when compiled"),
                // The parser draws the pattern; its last line says what is wrong.
                other => other.to_string().lines().last().unwrap_or_default().trim().to_owned(),
            })
    }

    /// Whether all of `bytes` matches.
    pub(super) fn matches(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Literal(literal) => literal == bytes,
            Self::Regex(regex) => regex.is_match(bytes),
        }
    }

    /// The only bytes that match, where the pattern is plain text.
    pub(super) fn literal(&self) -> Option<&[u8]> {
        match self {
            Self::Literal(literal) => Some(literal),
            Self::Regex(_) => None,
        }
    }
}

#[derive(Debug)]
struct Translation {
    /// In the `regex` crate's syntax, ASCII only.
    pattern: String,
    /// The text, where the pattern is nothing else.
    literal: Option<Vec<u8>>,
}

/// Turns RE2's syntax into the `regex` crate's.
fn translate(pattern: &[u8]) -> Result<Translation, String> {
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

/// Bytes, as a class of them.
#[derive(Clone)]
struct ByteSet([bool; 256]);

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
        let mut set = ByteSet([false; 256]);
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
                    set.add(|byte| more.0[usize::from(byte)]);
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
        let held: fn(u8) -> bool = match name {
            b"alnum" => |byte| byte.is_ascii_alphanumeric(),
            b"alpha" => |byte| byte.is_ascii_alphabetic(),
            b"ascii" => |byte| byte.is_ascii(),
            b"blank" => |byte| matches!(byte, b'\t' | b' '),
            b"cntrl" => |byte| byte.is_ascii_control(),
            b"digit" => |byte| byte.is_ascii_digit(),
            b"graph" => |byte| byte.is_ascii_graphic(),
            b"lower" => |byte| byte.is_ascii_lowercase(),
            b"print" => |byte| byte.is_ascii_graphic() || byte == b' ',
            b"punct" => |byte| byte.is_ascii_punctuation(),
            b"space" => |byte| matches!(byte, b'\t'..=b'\r' | b' '),
            b"upper" => |byte| byte.is_ascii_uppercase(),
            b"word" => |byte| byte.is_ascii_alphanumeric() || byte == b'_',
            b"xdigit" => |byte| byte.is_ascii_hexdigit(),
            _ => return Err(format!("unknown class: [:{}:]", name.escape_ascii())),
        };
        let mut named = ByteSet::of(held);
        if negated {
            named.negate();
        }
        set.add(|byte| named.0[usize::from(byte)]);
        self.rest = &self.rest[end + 2..];
        Ok(true)
    }
}

impl ByteSet {
    fn of(holds: impl Fn(u8) -> bool) -> Self {
        let mut set = Self([false; 256]);
        set.add(holds);
        set
    }

    fn add(&mut self, holds: impl Fn(u8) -> bool) {
        for byte in 0..=u8::MAX {
            self.0[usize::from(byte)] |= holds(byte);
        }
    }

    fn negate(&mut self) {
        for held in &mut self.0 {
            *held = !*held;
        }
    }

    /// As a class in the `regex` crate's syntax.
    fn as_class(&self, negated: bool) -> String {
        let mut class = String::from(if negated { "[^" } else { "[" });
        let mut next = 0;
        while let Some(low) = (next..256).find(|index| self.0[*index]) {
            let high = (low..256).take_while(|index| self.0[*index]).last().unwrap_or(low);
            class.push_str(&format!(r"\x{low:02X}-\x{high:02X}"));
            next = high + 1;
        }
        class.push(']');
        // The crate has no way to write an empty class, nor one that is not empty's.
        match class.as_str() {
            "[]" => r"[^\x00-\xFF]".to_owned(),
            "[^]" => r"[\x00-\xFF]".to_owned(),
            _ => class,
        }
    }
}

fn push_byte(pattern: &mut String, byte: u8) {
    if byte.is_ascii_alphanumeric() {
        pattern.push(char::from(byte));
    } else {
        pattern.push_str(&format!(r"\x{byte:02X}"));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROGRAM_BYTES_MAX: usize = 1 << 20;

    fn compiled(pattern: &[u8]) -> Pattern {
        Pattern::compile(pattern, PROGRAM_BYTES_MAX)
            .unwrap_or_else(|error| panic!("{}: {error}", pattern.escape_ascii()))
    }

    #[test]
    fn patterns_match_in_full_over_bytes() {
        type Texts<'a> = &'a [&'a [u8]];
        let cases: &[(&[u8], Texts<'_>, Texts<'_>)] = &[
            (b"", &[b""], &[b"a"]),
            (b"abc", &[b"abc"], &[b"abcd", b"xabc", b""]),
            (b"a|bc", &[b"a", b"bc"], &[b"abc", b"ac"]),
            (b"a.c", &[b"abc", b"a\xffc", b"a\0c"], &[b"a\nc", b"ac"]),
            (br"a\Cc", &[b"a\nc", b"a\xffc"], &[b"ac"]),
            (br"\C*", &[b"", b"\n\0\xff"], &[]),
            (b"(?s).*", &[b"\n\xff"], &[]),
            (br"\Qa.b\E.", &[b"a.bx"], &[b"axbx"]),
            (br"\Qa.b", &[b"a.b"], &[b"axb"]),
            (br"\161\0\012", &[b"q\0\n"], &[b"q"]),
            (br"\x{71}\x41", &[b"qA"], &[]),
            (b"\xe9+", &[b"\xe9\xe9"], &[b"\xc3\xa9"]),
            ("é".as_bytes(), &[b"\xc3\xa9"], &[b"\xe9"]),
            (b"[^a]", &[b"b", b"\xff", b"\n"], &[b"a"]),
            (b"(?i)[^a]q", &[b"bQ"], &[b"Aq", b"aq"]),
            (b"(?i:Q)x", &[b"qx", b"Qx"], &[b"qX"]),
            (br"\pL\d", &[b"a1", b"\xe91"], &[b"11"]),
            (br"\P{Lu}", &[b"a"], &[b"A"]),
            (br"\p{^Lu}", &[b"a"], &[b"A"]),
            (b"q{,2}", &[b"q{,2}"], &[b"q", b"qq"]),
            (b"q{2,}", &[b"qq", b"qqqq"], &[b"q"]),
            (b"q{2}?x", &[b"qqx"], &[b"qx"]),
            (b"{", &[b"{"], &[]),
            (b"}]", &[b"}]"], &[]),
            (b"[]a]", &[b"]", b"a"], &[b"b"]),
            (b"[[a]", &[b"[", b"a"], &[b"b"]),
            (b"[[]b]", &[b"[b]"], &[b"[", b"b"]),
            (b"[a&&b]", &[b"a", b"b", b"&"], &[b"c"]),
            (b"[a-]", &[b"a", b"-"], &[b"b"]),
            (br"[\w.]", &[b"a", b"."], &[b"-"]),
            (br"[^\s\S]", &[], &[b"a", b""]),
            (b"[[:alpha:]1]", &[b"a", b"1"], &[b"2", b":"]),
            (b"[[:^alpha:]]", &[b"1"], &[b"a"]),
            (br"\s", &[b" "], &[b"\x0b"]),
            (br"\<\-", &[b"<-"], &[]),
            (b"(?P<n>a)(?<m>b)", &[b"ab"], &[]),
            (b"(?)a", &[b"a"], &[]),
            (b"a # b", &[b"a # b"], &[b"a"]),
            (b"^a$", &[b"a"], &[b"a\n"]),
            (b"a|", &[b"a", b""], &[b"b"]),
        ];
        for (pattern, matching, others) in cases {
            let name = pattern.escape_ascii();
            let pattern = compiled(pattern);
            for bytes in *matching {
                assert!(pattern.matches(bytes), "{name} matches {}", bytes.escape_ascii());
            }
            for bytes in *others {
                assert!(!pattern.matches(bytes), "{name} does not match {}", bytes.escape_ascii());
            }
        }
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        let cases: &[(&[u8], &str)] = &[
            (b"\\", "ends in a backslash"),
            (b"a**", "repeats what is repeated already: *"),
            (b"a{2}{3}", "repeats what is repeated already: {3}"),
            (b"a{1001}", "repeats 1001 times, at most 1000"),
            (b"a{3,2}", "repeats at least 3 and at most 2 times"),
            (br"\8", r"unknown escape: \8"),
            (br"\1", r"unknown escape: \1"),
            (br"\y", r"unknown escape: \y"),
            (b"(?x)a", "unknown flag: x"),
            (b"(?P=n)", "unknown flag: P"),
            (b"[a", "a class has no end"),
            (b"[z-a]", "a range ends before it starts: z-a"),
            (b"[[:nope:]]", "unknown class: [:nope:]"),
            (br"\p{Nope}", "unknown Unicode class: Nope"),
            (br"\x{100}", "0x100 is no byte"),
            (b"(a", "error: unclosed group"),
            (b"a)", "error: unopened group"),
            (b"*a", "error: repetition operator missing expression"),
            (b"((((a{1000}){1000}){1000}){1000})", "needs more than 1048576 bytes when compiled"),
        ];
        for (pattern, expect) in cases {
            let error = Pattern::compile(pattern, PROGRAM_BYTES_MAX).unwrap_err();
            assert_eq!(&error, expect, "{}", pattern.escape_ascii());
        }
    }

    #[test]
    fn plain_text_is_a_literal() {
        assert_eq!(compiled(br"com\.example/\Qa+b\E").literal(), Some(&b"com.example/a+b"[..]));
        assert_eq!(compiled(b"com.example").literal(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_compile_or_are_refused(pattern in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Pattern::compile(&pattern, PROGRAM_BYTES_MAX);
        }

        #[test]
        fn any_syntax_compiles_or_is_refused(pattern in r"[\\\[\](){}|*+?^$.:ab0-9QECxpP,\-&~<>!=]{0,24}") {
            let _ = Pattern::compile(pattern.as_bytes(), PROGRAM_BYTES_MAX);
        }

        #[test]
        fn quoted_bytes_match_themselves_only(text in prop::collection::vec(any::<u8>(), 0..20), other in prop::collection::vec(any::<u8>(), 0..20)) {
            let quoted: Vec<u8> = text.iter().flat_map(|byte| format!(r"\x{byte:02x}").into_bytes()).collect();
            let mut any = quoted.clone();
            any.extend_from_slice(b"|[^\\x00-\\xff]");
            for pattern in [compiled(&quoted), compiled(&any)] {
                prop_assert!(pattern.matches(&text));
                prop_assert_eq!(pattern.matches(&other), text == other);
            }
        }
    }
}
