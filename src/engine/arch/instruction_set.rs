//! How much of the processor may be used.

#![forbid(unsafe_code)]

use std::str::FromStr;

/// The instruction sets that there are kernels for. Each includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// Code for every processor.
    Portable,
    /// AVX2, where the processor has it.
    Avx2,
    /// AVX-512, where the processor has it.
    #[default]
    Avx512,
}

impl InstructionSet {
    /// Every set, from the smallest to the largest.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// The name of the instruction set.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

/// There is no such set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchSet;

impl FromStr for InstructionSet {
    type Err = NoSuchSet;

    fn from_str(name: &str) -> Result<Self, NoSuchSet> {
        Self::ALL.into_iter().find(|set| set.name() == name).ok_or(NoSuchSet)
    }
}
