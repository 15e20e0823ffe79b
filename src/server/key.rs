//! Keys of connections: types of their own for each kind, and the numbers that the net knows them by.

/// An event source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourceKey(u32);

/// A connection on the user port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UserKey(u32);

/// A connection to the admin interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AdminKey(u32);

/// A client of the stream, or the connection to the stream that this server follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamKey(u32);

impl StreamKey {
    /// The connection to the stream that this server follows.
    pub(super) const UPSTREAM: Self = Self(u32::MAX);
}

/// Bits of a number that say which kind of key it is.
const KIND_BITS: u32 = 2;
const SOURCE: usize = 0;
const USER: usize = 1;
const ADMIN: usize = 2;
const STREAM: usize = 3;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Source(SourceKey),
    User(UserKey),
    Admin(AdminKey),
    Stream(StreamKey),
}

impl Key {
    /// The key behind the number that a socket has been registered with.
    pub(super) fn of(number: usize) -> Self {
        let index = (number >> KIND_BITS) as u32;
        match number & ((1 << KIND_BITS) - 1) {
            SOURCE => Self::Source(SourceKey(index)),
            USER => Self::User(UserKey(index)),
            ADMIN => Self::Admin(AdminKey(index)),
            _ => Self::Stream(StreamKey(index)),
        }
    }
}

macro_rules! key {
    ($key:ident, $kind:ident) => {
        impl $key {
            /// The key of a place in a slab.
            pub(super) fn new(index: usize) -> Self {
                Self(index as u32)
            }

            /// The place in its slab.
            pub(super) fn index(self) -> usize {
                self.0 as usize
            }

            /// The number that its socket is registered with.
            pub(super) fn number(self) -> usize {
                (self.index() << KIND_BITS) | $kind
            }
        }
    };
}

key!(SourceKey, SOURCE);
key!(UserKey, USER);
key!(AdminKey, ADMIN);
key!(StreamKey, STREAM);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_leads_back_to_its_key() {
        for index in [0, 1, 2, 3, 4, 1 << 20, u32::MAX as usize] {
            let source = SourceKey::new(index);
            assert_eq!(Key::of(source.number()), Key::Source(source));
            let user = UserKey::new(index);
            assert_eq!(Key::of(user.number()), Key::User(user));
            let admin = AdminKey::new(index);
            assert_eq!(Key::of(admin.number()), Key::Admin(admin));
            let stream = StreamKey::new(index);
            assert_eq!(Key::of(stream.number()), Key::Stream(stream));
        }
    }
}
