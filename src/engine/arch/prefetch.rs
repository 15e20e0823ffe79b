//! Asking for memory before it is needed.

/// Asks for a value to be brought into the cache, without waiting for it.
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    super::x86_64::vector::prefetch(value);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
