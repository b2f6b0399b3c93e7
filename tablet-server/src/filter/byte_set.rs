//! Sets of bytes, as patterns' classes are.

/// Bytes, as a class of them.
pub(super) struct ByteSet([bool; 256]);

impl Default for ByteSet {
    fn default() -> Self {
        Self([false; 256])
    }
}

impl ByteSet {
    /// The bytes that `holds` says so of.
    pub(super) fn of(holds: impl Fn(u8) -> bool) -> Self {
        let mut set = Self::default();
        set.add(holds);
        set
    }

    /// The POSIX class called `name`.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
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
            _ => return None,
        };
        Some(Self::of(held))
    }

    /// Whether `byte` is in it.
    pub(super) fn holds(&self, byte: u8) -> bool {
        self.0[usize::from(byte)]
    }

    /// Adds the bytes that `holds` says so of.
    pub(super) fn add(&mut self, holds: impl Fn(u8) -> bool) {
        for byte in 0..=u8::MAX {
            self.0[usize::from(byte)] |= holds(byte);
        }
    }

    /// Swaps what is in it for what is not.
    pub(super) fn negate(&mut self) {
        for held in &mut self.0 {
            *held = !*held;
        }
    }

    /// As a class in the `regex` crate's syntax.
    pub(super) fn as_class(&self, negated: bool) -> String {
        let mut class = String::from(if negated { "[^" } else { "[" });
        let mut next = 0;
        while let Some(low) = (next..256).find(|index| self.0[*index]) {
            let high = (low..256).take_while(|index| self.0[*index]).last().unwrap_or(low);
            class.push_str(&format!(r"\x{low:02X}-\x{high:02X}"));
            next = high + 1;
        }
        class.push(']');
        // Neither `[]` nor `[^]` is how the crate writes no byte and any byte.
        match class.as_str() {
            "[]" => r"[^\x00-\xFF]".to_owned(),
            "[^]" => r"[\x00-\xFF]".to_owned(),
            _ => class,
        }
    }
}
