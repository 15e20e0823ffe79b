//! A relation between rows and columns: for each row, a set of columns.
//!
//! A small relation is a matrix of bits. The place of a bit is computed, and nothing has to be looked up. A large relation has
//! an [`IdSet`] for each row, and keeps this form. Rows behind the last one that ever had a column take no memory.

#![forbid(unsafe_code)]

use super::{
    arch::prefetch,
    bits::{for_each_bit, for_each_bit_from, set_bit},
    idset::IdSet,
};

/// Words of the largest matrix: 512 KiB.
const MATRIX_WORDS_MAX: usize = 1 << 16;
/// Words of its widest row, 2,048 columns: in wider ones there may be too little to be worth a look at every word.
const STRIDE_MAX: usize = 32;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Relation {
    /// The rows of the matrix, one after the other; none if there are sets.
    matrix: Vec<u64>,
    /// Words of a row of the matrix, or of what would be one: as many as there must be room for.
    stride: usize,
    sets: Vec<IdSet>,
}

/// The columns of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Columns<'a> {
    /// As bits. What is behind them is not in it.
    Bits(&'a [u64]),
    Set(&'a IdSet),
}

impl Relation {
    /// Becomes sets, however small it is.
    #[cfg(test)]
    pub(crate) fn become_large(&mut self) {
        self.become_sets();
        let rows = self.sets.len().max(1);
        self.sets.resize_with(rows, IdSet::default);
    }

    /// Makes room for this number of columns.
    pub(crate) fn fit_columns(&mut self, columns: usize) {
        let stride = columns.div_ceil(64);
        if stride <= self.stride {
            return;
        }
        let rows = self.matrix.chunks_exact(self.stride.max(1));
        if is_large(rows.len(), stride) {
            self.become_sets();
        } else {
            let mut matrix = vec![0; rows.len() * stride];
            for (wider, row) in matrix.chunks_exact_mut(stride).zip(rows) {
                wider[..row.len()].copy_from_slice(row);
            }
            self.matrix = matrix;
        }
        self.stride = stride;
    }

    /// Adds a column to a row or removes it; there must be room for the column. Says how many more there are: one, none, or -1.
    /// Branch-free: insert or remove is unpredictable where many columns come and go. New rows are the exception.
    #[inline(always)]
    pub(crate) fn set(&mut self, row: u32, column: u32, member: bool) -> i32 {
        debug_assert!((column as usize) < 64 * self.stride, "there is room for the column");
        if let Some(word) = self.matrix.get_mut(row as usize * self.stride + column as usize / 64) {
            set_bit(word, column, member)
        } else if let Some(set) = self.sets.get_mut(row as usize) {
            set.set(column, member)
        } else {
            self.set_in_new_row(row, column, member)
        }
    }

    #[cold]
    fn set_in_new_row(&mut self, row: u32, column: u32, member: bool) -> i32 {
        if !member {
            return 0;
        }
        assert!((column as usize) < 64 * self.stride, "there is room for the column");
        self.add_row(row);
        self.set(row, column, true)
    }

    /// Asks for a place to be brought into the cache.
    #[inline(always)]
    pub(crate) fn prefetch(&self, row: u32, column: u32) {
        if let Some(word) = self.matrix.get(row as usize * self.stride + column as usize / 64) {
            prefetch(word);
        } else if let Some(set) = self.sets.get(row as usize) {
            set.prefetch(column);
        }
    }

    /// The columns of a row.
    #[inline(always)]
    pub(crate) fn row(&self, row: u32) -> Columns<'_> {
        let start = row as usize * self.stride;
        if let Some(bits) = self.matrix.get(start..start + self.stride) {
            Columns::Bits(bits)
        } else if let Some(set) = self.sets.get(row as usize) {
            set.bits().map_or(Columns::Set(set), Columns::Bits)
        } else {
            Columns::Bits(&[])
        }
    }

    /// Whether a row has a column.
    pub(crate) fn contains(&self, row: u32, column: u32) -> bool {
        self.row(row).contains(column)
    }

    /// A row has no columns any more. The memory of its set is given back. A matrix keeps its memory.
    pub(crate) fn forget(&mut self, row: u32) {
        if let Some(set) = self.sets.get_mut(row as usize) {
            *set = IdSet::default();
        }
    }

    /// Adds all rows up to this one.
    fn add_row(&mut self, row: u32) {
        let rows = row as usize + 1;
        if self.sets.is_empty() && is_large(rows, self.stride) {
            self.become_sets();
        } else if self.sets.is_empty() {
            self.matrix.resize(rows * self.stride, 0);
            return;
        }
        self.sets.resize_with(rows, IdSet::default);
    }

    fn become_sets(&mut self) {
        self.sets.extend(self.matrix.chunks_exact(self.stride.max(1)).map(IdSet::of_bits));
        self.matrix = Vec::new();
    }
}

/// From this number of rows on a matrix would be too large.
fn is_large(rows: usize, stride: usize) -> bool {
    stride > STRIDE_MAX || rows * stride > MATRIX_WORDS_MAX
}

impl Columns<'_> {
    /// How many there are.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Bits(words) => words.iter().map(|word| word.count_ones() as usize).sum(),
            Self::Set(set) => set.len(),
        }
    }

    /// Whether this is one of them.
    pub(crate) fn contains(self, column: u32) -> bool {
        match self {
            Self::Bits(words) => {
                words.get(column as usize / 64).is_some_and(|word| word >> (column % 64) & 1 != 0)
            }
            Self::Set(set) => set.contains(column),
        }
    }

    /// Calls `f` with every one.
    pub(crate) fn for_each(self, mut f: impl FnMut(u32)) {
        match self {
            Self::Bits(words) => for_each_bit(words, |column| f(column as u32)),
            Self::Set(set) => set.for_each(f),
        }
    }

    /// Calls `f` with those from `first` on, in their order, as long as there are steps left; a word of bits takes one more.
    /// Returns where to go on, or nothing if that was all.
    pub(crate) fn for_each_from(self, first: u32, left: &mut usize, f: impl FnMut(u32)) -> Option<u32> {
        match self {
            Self::Bits(words) => for_each_bit_from(words, first, left, f),
            Self::Set(set) => set.for_each_from(first, left, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// A row that few columns make too much for a matrix.
    const FAR: u32 = 4000;

    #[derive(Clone, Debug)]
    enum Step {
        FitColumns(usize),
        Set(u32, u32, bool),
        Empty(u32),
    }

    /// Few rows again and again, and some far away: what has to become sets does sooner or later.
    fn row() -> impl Strategy<Value = u32> {
        prop_oneof![40 => 0..10u32, 4 => 0..300u32, 1 => Just(FAR)]
    }

    fn step() -> impl Strategy<Value = Step> {
        let columns = prop_oneof![10 => 0..200usize, 2 => 0..64 * STRIDE_MAX, 1 => Just(64 * STRIDE_MAX + 1)];
        prop_oneof![
            5 => columns.prop_map(Step::FitColumns),
            100 => (row(), prop_oneof![0..10u32, 55..75u32, any::<u32>()], any::<bool>())
                .prop_map(|(row, column, member)| Step::Set(row, column, member)),
            5 => row().prop_map(Step::Empty),
        ]
    }

    fn columns(relation: &Relation, row: u32) -> Vec<u32> {
        let mut columns = Vec::new();
        relation.row(row).for_each(|column| columns.push(column));
        columns.sort_unstable();
        columns
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_pairs(steps in prop::collection::vec(step(), 0..400)) {
            let mut relation = Relation::default();
            let mut model: BTreeSet<(u32, u32)> = BTreeSet::new();
            let mut fitted = 0;
            for step in steps {
                match step {
                    Step::FitColumns(columns) => {
                        relation.fit_columns(columns);
                        fitted = fitted.max(columns);
                    }
                    Step::Set(..) if fitted == 0 => {}
                    Step::Set(row, column, member) => {
                        let column = column % fitted as u32;
                        let pair = (row, column);
                        let more = if member { i32::from(model.insert(pair)) } else { -i32::from(model.remove(&pair)) };
                        relation.prefetch(row, column);
                        prop_assert_eq!(relation.set(row, column, member), more);
                    }
                    Step::Empty(row) => {
                        for column in columns(&relation, row) {
                            prop_assert_eq!(relation.set(row, column, false), -1);
                        }
                        relation.forget(row);
                        model.retain(|pair| pair.0 != row);
                    }
                }
                prop_assert!(relation.matrix.is_empty() || relation.sets.is_empty());
            }
            let mut pairs = Vec::new();
            for row in 0..=FAR {
                pairs.extend(columns(&relation, row).into_iter().map(|column| (row, column)));
            }
            prop_assert!(pairs.iter().eq(&model));
        }
    }

    #[test]
    fn it_is_a_matrix_while_it_is_small() {
        let mut relation = Relation::default();
        relation.fit_columns(64 * 16);
        assert_eq!(relation.set(4095, 64 * 16 - 1, true), 1);
        assert_eq!(relation.matrix.len(), MATRIX_WORDS_MAX);
        assert_eq!(relation.set(4096, 0, false), 0, "nothing is removed, and no row made for that");
        assert_eq!(relation.matrix.len(), MATRIX_WORDS_MAX);
        assert_eq!(relation.set(4096, 0, true), 1, "a row too much");
        assert_eq!((relation.matrix.len(), relation.sets.len()), (0, 4097));
        let mut relation = Relation::default();
        relation.fit_columns(64 * 16);
        assert_eq!(relation.set(4095, 0, true), 1);
        relation.fit_columns(64 * 16 + 1);
        assert_eq!((relation.matrix.len(), relation.sets.len()), (0, 4096), "a column too much");
        assert_eq!((columns(&relation, 4095), columns(&relation, 5000)), (vec![0], vec![]));
        let mut relation = Relation::default();
        relation.fit_columns(64 * STRIDE_MAX + 1);
        assert_eq!(relation.set(0, 0, true), 1);
        assert_eq!((relation.matrix.len(), relation.sets.len()), (0, 1), "too wide from the start");
    }
}
