//! RE2 patterns over bytes, matched in full.
//!
//! Bigtable compiles patterns as RE2 does in Latin-1: each byte is a character,
//! in the pattern and in what it is matched with (`RowFilter` in the v2 proto).
//! The `regex` crate without Unicode does the same; `re2` turns the one's syntax
//! into the other's.

use regex::bytes::{Regex, RegexBuilder};

use super::re2;

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
        let translation = re2::translate(pattern)?;
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
