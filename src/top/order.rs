//! What the tables of those who are connected are sorted by.

/// What users and sources are sorted by, largest first; ids and names the other way. A source that waits has been silent for longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Rate,
    Waiting,
    Behind,
    Bytes,
    Age,
    Id,
}

/// Every order with its key and the head of its column.
pub(super) const ORDERS: [(Order, char, &str); 6] = [
    (Order::Id, 'i', "User"),
    (Order::Rate, 'r', "bytes/s"),
    (Order::Waiting, 'w', "waiting"),
    (Order::Behind, 'b', "behind"),
    (Order::Bytes, 't', "total"),
    (Order::Age, 'a', "connected"),
];

impl Order {
    /// The order that a key asks for.
    pub(super) fn of_key(key: char) -> Option<Self> {
        ORDERS.iter().find(|(_, of_order, _)| *of_order == key).map(|&(order, ..)| order)
    }
}
