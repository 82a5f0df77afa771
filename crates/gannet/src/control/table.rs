//! Columns of text.

use std::fmt;

/// On which side of its column a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Writes titles and rows, each column as wide as its widest cell.
pub(super) fn table(
    f: &mut fmt::Formatter<'_>,
    titles: &[(&str, Align)],
    rows: impl Iterator<Item = Vec<String>>,
) -> fmt::Result {
    let heads = titles
        .iter()
        .map(|(title, _)| (*title).to_owned())
        .collect();
    let one_line = |row: Vec<String>| row.iter().map(|cell| cell.replace('\n', " ")).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heads).chain(rows).map(one_line).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..titles.len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    for row in rows {
        let mut line = String::new();
        for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(titles) {
            match align {
                Align::Left => line += &format!("{cell:<width$}  "),
                Align::Right => line += &format!("{cell:>width$}  "),
            }
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}
