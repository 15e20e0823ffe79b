//! An event as the ring keeps it: type, user ids, and the place of its text, in 16 bytes.

#![forbid(unsafe_code)]

/// Text of this many bytes waits in its slot; longer ones are boxed.
pub(crate) const INLINE_BYTES: usize = 48;

/// The slot refers to the chunk being worked on.
pub(crate) const FRESH: u8 = 1;
/// A user id does not fit the slot: it must be read from the text.
pub(crate) const WIDE: u8 = 2;
/// The text is boxed.
pub(crate) const BOXED: u8 = 4;

/// Its text is longer than [`INLINE_BYTES`].
pub(crate) const LONG: u8 = 8;
/// The flags of an event that is not ordinary.
const UNUSUAL: u8 = WIDE | BOXED | LONG;
/// There is an event, and it is an ordinary one.
pub(crate) const ORDINARY: u8 = 16;

/// The ring's description of an event: 16 bytes that travel in two registers. A slot of kind 0 is empty.
///
/// The first word is the offset of a fresh event's text in its chunk, or, where it is not fresh, the tick at which it came
/// ([`arrivals`](super::arrivals)), and `from`; the second one `to`, the text's length, the
/// kind, and the flags.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub(crate) struct Packed([u64; 2]);

impl Packed {
    #[inline(always)]
    pub(crate) fn new(kind: u8, flags: u8, from: u32, to: u32, text: u32, len: u16) -> Self {
        let flags = if flags & UNUSUAL == 0 { flags | ORDINARY } else { flags };
        Self([
            u64::from(text) | u64::from(from) << 32,
            u64::from(to) | u64::from(len) << 32 | u64::from(kind) << 48 | u64::from(flags) << 56,
        ])
    }

    /// Words that have been put together as [`Packed::new`] does.
    #[inline(always)]
    pub(crate) fn of_words(words: [u64; 2]) -> Self {
        Self(words)
    }

    #[inline(always)]
    pub(crate) fn text(self) -> usize {
        self.0[0] as u32 as usize
    }

    /// When it came, if it is not fresh.
    #[inline(always)]
    pub(crate) fn tick(self) -> u32 {
        self.0[0] as u32
    }

    /// Not fresh any more: it came at this tick.
    pub(crate) fn settled(self, tick: u32) -> Self {
        Self([self.0[0] >> 32 << 32 | u64::from(tick), self.0[1]]).without(FRESH)
    }

    #[inline(always)]
    pub(crate) fn from(self) -> u64 {
        self.0[0] >> 32
    }

    #[inline(always)]
    pub(crate) fn to(self) -> u64 {
        u64::from(self.0[1] as u32)
    }

    #[inline(always)]
    pub(crate) fn len(self) -> usize {
        usize::from((self.0[1] >> 32) as u16)
    }

    #[inline(always)]
    pub(crate) fn kind(self) -> u8 {
        (self.0[1] >> 48) as u8
    }

    /// Whether it has any of these flags.
    #[inline(always)]
    pub(crate) fn has(self, flags: u8) -> bool {
        (self.0[1] >> 56) as u8 & flags != 0
    }

    #[inline(always)]
    pub(crate) fn is_empty(self) -> bool {
        self.kind() == 0
    }

    /// Neither empty nor unusual.
    #[inline(always)]
    pub(crate) fn is_ordinary(self) -> bool {
        self.has(ORDINARY)
    }

    /// With flags that make it unusual.
    pub(crate) fn with(self, flags: u8) -> Self {
        debug_assert_ne!(flags & UNUSUAL, 0);
        Self([self.0[0], self.0[1] | u64::from(flags) << 56]).without(ORDINARY)
    }

    pub(crate) fn without(self, flags: u8) -> Self {
        Self([self.0[0], self.0[1] & !(u64::from(flags) << 56)])
    }
}
