//! Tables of results: what CSV and Parquet files hold.
//!
//! | kind  | cells   | in Parquet                  |
//! |-------|---------|-----------------------------|
//! | count | `u64`   | INT64, unsigned, required   |
//! | real  | `f64`   | DOUBLE, required            |
//! | text  | string  | BYTE_ARRAY, UTF-8, required |
//!
//! Invariant: all columns of a table are equally long. Writing files is the program's.

/// The cells of one column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cells {
    /// Whole numbers.
    Count(Vec<u64>),
    /// Numbers; NaN where there is none.
    Real(Vec<f64>),
    /// Strings.
    Text(Vec<String>),
}

impl Cells {
    fn len(&self) -> usize {
        match self {
            Self::Count(cells) => cells.len(),
            Self::Real(cells) => cells.len(),
            Self::Text(cells) => cells.len(),
        }
    }

    /// Cell `row` as text: numbers in the shortest form that reads back the same.
    #[must_use]
    pub fn show(&self, row: usize) -> String {
        match self {
            Self::Count(cells) => cells[row].to_string(),
            Self::Real(cells) if cells[row].is_nan() => String::new(),
            Self::Real(cells) => cells[row].to_string(),
            Self::Text(cells) => cells[row].clone(),
        }
    }
}

/// Named columns of one length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    columns: Vec<(String, Cells)>,
}

impl Table {
    /// Adds a column.
    ///
    /// # Panics
    ///
    /// If it is longer or shorter than the others: our own bug.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, cells: Cells) -> Self {
        let same = self.columns.is_empty() || cells.len() == self.rows();
        assert!(same, "columns of a table are equally long");
        self.columns.push((name.into(), cells));
        self
    }

    /// Its columns, with their names.
    #[must_use]
    pub fn columns(&self) -> &[(String, Cells)] {
        &self.columns
    }

    /// Its rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |(_, cells)| cells.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_show_what_reads_back_the_same() {
        let table = Table::default()
            .with("n", Cells::Count(vec![1, u64::MAX]))
            .with("x", Cells::Real(vec![0.1, f64::NAN]))
            .with("s", Cells::Text(vec!["a".into(), "b".into()]));
        assert_eq!(table.rows(), 2);
        let shown: Vec<String> = table
            .columns()
            .iter()
            .map(|(_, cells)| cells.show(1))
            .collect();
        assert_eq!(shown, ["18446744073709551615", "", "b"]);
        assert_eq!(table.columns()[1].1.show(0), "0.1");
    }
}
